"""Hugging Face folders: loading tensor by tensor, saving what transformers opens."""

import contextlib
import itertools
import json
import re
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from language_models import STORIES
from tensor_folders import (
    CODES,
    EMBEDDING,
    HEAD,
    INDEX,
    NORM,
    SINGLE,
    UP,
    make_folder,
    refusal,
    shapes_of,
    stored_bytes,
    weights,
)

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.checkpoints import load_tensors, save_checkpoint
from thicket_jax.text.tensor_files import stored_tensors

pytest.importorskip("safetensors")
from safetensors import safe_open

needs_stories = pytest.mark.skipif(
    not STORIES.is_dir(), reason="needs the model in shared/models/stories260K"
)


# Loading.


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", CODES)
def test_what_is_stored_is_loaded_and_saved_bit_for_bit(tmp_path, dtype, shards):
    tensors = weights(dtype)
    base = make_folder(tmp_path / "base", tensors, shards)
    loaded = load_tensors(base, shapes_of(tensors), dtype)
    assert list(loaded) == list(tensors)
    for name, value in loaded.items():
        assert isinstance(value, jax.Array) and value.dtype == dtype
        assert np.asarray(value).tobytes() == tensors[name].tobytes()
    limit = 5 * 10**9 if shards == 1 else 700
    to = save_checkpoint(base, tmp_path / "new", loaded, max_shard_bytes=limit, notes={})
    assert (to / SINGLE).exists() == (shards == 1)
    assert stored_bytes(to) == stored_bytes(base)
    assert {code for code, _, _ in stored_bytes(to).values()} == {CODES[dtype]}


def to_bfloat16(wide):
    """Rounds float32 to nearest even by integer arithmetic; returns the 16 bits."""
    bits = wide.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def test_conversions_round_once_to_nearest_even(tmp_path):
    every = np.arange(2**16, dtype=np.uint16)
    half = every.view(np.float16)
    half = half[np.isfinite(half)]
    brain = every.view(ml_dtypes.bfloat16)
    brain = brain[np.abs(brain.astype(np.float32)) < 65520]
    rng = np.random.default_rng(0)
    single = (rng.normal(size=2**16) * 2.0 ** rng.integers(-30, 15, 2**16)).astype(np.float32)
    # Halfway between two numbers of either type, and a bit beside it.
    tie = (np.float32(1) + np.float32([2**-8, 3 * 2**-8, 2**-11, 3 * 2**-11])).view(np.uint32)
    single[:12] = np.concatenate([tie, tie + 1, tie - 1]).view(np.float32)
    for name, values in {"half": half, "brain": brain, "single": single}.items():
        folder = make_folder(tmp_path / name, {"x": values})
        wide = values.astype(np.float32)
        for dtype, expected in {
            "float32": wide.tobytes(),
            "bfloat16": to_bfloat16(wide).tobytes(),
            "float16": wide.astype(np.float64).astype(np.float16).tobytes(),
        }.items():
            got = load_tensors(folder, {"x": values.shape}, dtype)["x"]
            assert got.dtype == dtype and np.asarray(got).tobytes() == expected, (name, dtype)


def test_a_weight_beyond_float16_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "base", {"x": np.float32([1, 70000])})
    text = refusal(DataError, lambda: load_tensors(folder, {"x": (2,)}, "float16"))
    assert SINGLE in text and "'x'" in text and "70000" in text and "float32" in text


@pytest.mark.parametrize("to", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", CODES)
def test_weights_that_are_not_finite_are_named_and_counted(tmp_path, stored, to):
    tensors = weights(stored)
    tensors["big"] = np.ones((3, 2**14), jnp.dtype(stored))
    tensors["none"] = np.ones((0, 2), jnp.dtype(stored))
    load_tensors(make_folder(tmp_path / "good", tensors), shapes_of(tensors), to)
    for name, bad in [(UP, [np.nan]), ("big", [np.inf, -np.inf, np.nan]), (NORM, [np.nan] * 8)]:
        spoiled = {**tensors, name: tensors[name].copy()}
        spoiled[name].reshape(-1)[-len(bad) :] = bad
        folder = make_folder(tmp_path / name, spoiled, 2)
        text = refusal(DataError, lambda at=folder: load_tensors(at, shapes_of(tensors), to))
        assert f"tensor {name!r} has {len(bad)} NaN or infinite numbers of " in text
        assert f"{tensors[name].size:,}; download" in text and ".safetensors" in text


def test_place_puts_each_tensor_on_the_device(tmp_path):
    tensors = weights()
    base = make_folder(tmp_path / "base", tensors, 2)
    device = jax.devices()[-1]
    loaded = load_tensors(
        base, shapes_of(tensors), jnp.bfloat16, place=lambda x: jax.device_put(x, device)
    )
    assert {x.device for x in loaded.values()} == {device}


@contextlib.contextmanager
def peak_memory():
    found = {}
    tracemalloc.start()
    try:
        yield found
        found["bytes"] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype, copies", [("float32", 1), ("bfloat16", 1.5)])
def test_loading_holds_one_tensor_on_the_host(tmp_path, dtype, copies):
    one = 2**18
    tensors = {f"layers.{i}.weight": np.full((256, 256), i, np.float32) for i in range(12)}
    base = make_folder(tmp_path / "base", tensors, 3)
    small = jnp.zeros((), jnp.float32)
    seen = []

    def place(host):
        seen.append(float(host[0, 0]))
        return small

    with peak_memory() as peak:
        load_tensors(base, shapes_of(tensors), dtype, place=place)
    assert sorted(seen) == list(range(12))
    assert copies * one <= peak["bytes"] < (copies + 0.5) * one


def test_saving_holds_one_shard_on_the_host(tmp_path):
    one, count = 2**18, 12
    shape = {f"layers.{i}.weight": np.zeros((256, 256), np.float32) for i in range(count)}
    base = make_folder(tmp_path / "base", shape)
    del shape
    pairs = ((f"layers.{i}.weight", np.full((256, 256), i, np.float32)) for i in range(count))
    with peak_memory() as peak:
        to = save_checkpoint(base, tmp_path / "new", pairs, max_shard_bytes=3 * one, notes={})
    assert peak["bytes"] < 4.5 * one
    sizes = [path.stat().st_size for path in sorted(to.glob("model-*-of-00004.safetensors"))]
    assert len(sizes) == 4 and max(sizes) < 3 * one + 1000
    assert json.loads((to / INDEX).read_text())["metadata"] == {"total_size": count * one}


def test_rotary_constants_of_old_checkpoints_are_ignored(tmp_path):
    tensors = weights()
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float64)}
    for shards in (1, 2):
        base = make_folder(tmp_path / str(shards), extra | tensors, shards)
        assert set(load_tensors(base, shapes_of(tensors), "float32")) == set(tensors)


def test_a_tied_head_may_be_absent_or_equal(tmp_path):
    tensors = weights()
    body = {name: value for name, value in tensors.items() if name != HEAD}
    absent = make_folder(tmp_path / "absent", body)
    equal = make_folder(tmp_path / "equal", {**body, HEAD: body[EMBEDDING]}, 3)
    other = make_folder(tmp_path / "other", tensors)
    for folder in (absent, equal):
        for wanted in (body, tensors):
            found = load_tensors(folder, shapes_of(wanted), "float32", tied=(HEAD,))
            assert list(found) == list(body)
    text = refusal(DataError, lambda: load_tensors(other, shapes_of(body), "float32", tied=(HEAD,)))
    assert SINGLE in text and HEAD in text and EMBEDDING in text and "tie_word" in text
    text = refusal(DataError, lambda: load_tensors(absent, shapes_of(tensors), "float32"))
    assert SINGLE in text and HEAD in text


@pytest.mark.parametrize("head", CODES)
@pytest.mark.parametrize("table", CODES)
def test_a_tied_head_of_another_dtype_is_compared_by_value(tmp_path, table, head):
    body = {EMBEDDING: (np.arange(12).reshape(4, 3) / 8).astype(jnp.dtype(table))}
    same = body[EMBEDDING].astype(jnp.dtype(head))
    other = same.copy()
    other[-1, -1] += 1
    equal = make_folder(tmp_path / "equal", {**body, HEAD: same})
    differs = make_folder(tmp_path / "differs", {**body, HEAD: other})
    for to in CODES:
        assert list(load_tensors(equal, shapes_of(body), to, tied=(HEAD,))) == [EMBEDDING]
        text = refusal(
            DataError, lambda to=to: load_tensors(differs, shapes_of(body), to, tied=(HEAD,))
        )
        assert f"({CODES[head]} [4, 3]) differs" in text and f"({CODES[table]} [4, 3])" in text


@pytest.mark.parametrize(("table", "head"), [*itertools.permutations(CODES, 2)])
def test_a_tied_head_that_is_the_table_rounded_is_accepted(tmp_path, table, head):
    digits = np.linspace(-1, 1, 12).reshape(4, 3)
    wide, narrow = (table, head) if table == "float32" else (head, table)
    tensors = {wide: digits.astype(jnp.dtype(wide))}
    tensors[narrow] = tensors[wide].astype(jnp.dtype(narrow))
    body = {EMBEDDING: tensors[table]}
    folder = make_folder(tmp_path / "base", {**body, HEAD: tensors[head]})
    assert load_tensors(folder, shapes_of(body), "float32", tied=(HEAD,))


def test_a_tied_head_is_compared_to_its_last_row(tmp_path):
    table = np.zeros((5 * 2**20, 1), ml_dtypes.bfloat16)
    head = table.copy()
    head[-1] = 1
    folder = make_folder(tmp_path / "base", {EMBEDDING: table, HEAD: head})
    wanted = {EMBEDDING: table.shape}
    text = refusal(DataError, lambda: load_tensors(folder, wanted, "bfloat16", tied=(HEAD,)))
    assert "differs" in text


# Saving.


def test_a_saved_folder_has_config_tokenizer_and_notes_but_no_code_or_old_weights(tmp_path):
    tensors = weights()
    base = make_folder(tmp_path / "base", tensors, dtype="float32", torch_dtype="float32", x=[1])
    kept = ["vocab.json", "merges.txt", "spiece.model", "tokenizer_config.json", "LICENSE"]
    kept += ["chat_template.jinja", "special_tokens_map.json", "generation_config.json"]
    (base / "additional_chat_templates").mkdir()
    kept += ["additional_chat_templates/tools.jinja", "added_tokens.json"]
    for name in kept + ["modeling_x.py", "pytorch_model.bin", "README.md", "thicket.json"]:
        (base / name).write_text(f"content of {name}")
        (base / name).chmod(0o444)
    half = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    notes = {"prng": "threefry2x32", "key": [0, 1], "id": 3, "sigma": 0.001}
    to = save_checkpoint(str(base), str(tmp_path / "deep" / "new"), half, notes=notes)
    assert to == tmp_path / "deep" / "new"
    found = {p.relative_to(to).as_posix() for p in to.rglob("*") if p.is_file()}
    assert found == {*kept, "config.json", "tokenizer.json", SINGLE, "thicket.json"}
    for name in kept:
        assert (to / name).read_text() == f"content of {name}"
    config = json.loads((to / "config.json").read_text())
    assert config == {
        "model_type": "llama", "dtype": "bfloat16", "torch_dtype": "bfloat16", "x": [1]
    }  # fmt: skip
    assert json.loads((to / "thicket.json").read_text()) == notes
    with safe_open(to / SINGLE, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in to.parent.iterdir()] == ["new"]


def test_arrays_on_devices_and_in_any_layout_are_saved(tmp_path):
    mesh = jax.make_mesh((2,), ("x",))
    split = jax.NamedSharding(mesh, jax.P("x"))
    value = np.arange(32, dtype=np.float32).reshape(4, 8)
    base = make_folder(tmp_path / "base", {name: value for name in "abcd"})
    to = save_checkpoint(
        base,
        tmp_path / "new",
        {
            "a": np.asfortranarray(value),
            "b": jax.device_put(value, split),
            "c": jax.device_put(value, jax.NamedSharding(mesh, jax.P())),
            "d": jnp.asarray(value.T.copy()).T,
        },
        notes={},
    )
    assert {data for _, _, data in stored_bytes(to).values()} == {value.tobytes()}


@pytest.mark.parametrize("head_stored", [False, True])
def test_a_tied_head_is_left_out(tmp_path, head_stored):
    tensors = weights()
    tensors[HEAD] = tensors[EMBEDDING]
    body = {name: value for name, value in tensors.items() if name != HEAD}
    base = make_folder(
        tmp_path / "base", tensors if head_stored else body, tie_word_embeddings=True
    )
    for name, given in {"with": tensors, "without": body}.items():
        to = save_checkpoint(base, tmp_path / name, given, notes={})
        assert set(stored_bytes(to)) == set(body)


def test_what_cannot_be_saved_is_one_line_and_leaves_nothing(tmp_path):
    tensors = weights()
    base = make_folder(tmp_path / "base", tensors)
    before = sorted(path.name for path in tmp_path.iterdir())

    def said(error, tensors, to="new", **options):
        text = refusal(
            error, lambda: save_checkpoint(base, tmp_path / to, tensors, **{"notes": {}} | options)
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return text

    body = {name: value for name, value in tensors.items() if name != HEAD}
    assert "exists" in said(ArgumentError, tensors, to="base")
    assert HEAD in said(ArgumentError, body) and HEAD in said(ArgumentError, iter(body.items()))
    assert "'model.x'" in said(ArgumentError, tensors | {"model.x": tensors[NORM]})
    assert "twice" in said(ArgumentError, [*tensors.items(), (NORM, tensors[NORM])])
    assert "[8, 24]" in said(ArgumentError, tensors | {UP: tensors[UP].T})
    assert UP in said(ArgumentError, tensors | {UP: tensors[UP].astype(np.float16)})
    assert "int8" in said(ArgumentError, {k: v.astype(np.int8) for k, v in tensors.items()})
    assert "notes" in said(ArgumentError, tensors, notes={"sigma": float("nan")})
    assert "notes" in said(ArgumentError, tensors, notes={"key": jax.random.key(0)})
    assert "max_shard_bytes" in said(ArgumentError, tensors, max_shard_bytes=0)
    assert "base" in said(ArgumentError, tensors, to="base/config.json/new")
    (base / "config.json").unlink()
    assert "config.json is missing" in said(DataError, tensors)


def test_an_interrupt_leaves_nothing(tmp_path):
    tensors = weights()
    base = make_folder(tmp_path / "base", tensors)

    def pairs():
        yield from list(tensors.items())[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(base, tmp_path / "new", pairs(), max_shard_bytes=100, notes={})
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


# transformers.


def logits(folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        out = model(torch.arange(1, 17).reshape(2, 8)).logits
    return str(out.dtype).removeprefix("torch."), out.float().numpy()


def same_for_transformers(base, to, dtype):
    stored = {t.name: t.shape for t in stored_tensors(base).values()}
    loaded = load_tensors(base, stored, dtype)
    save_checkpoint(base, to, loaded, max_shard_bytes=2**14, notes={})
    expected, got = logits(base), logits(to)
    assert got[0] == expected[0] == dtype
    np.testing.assert_array_equal(got[1], expected[1])
    assert stored_bytes(to) == stored_bytes(base)


@pytest.mark.parametrize("dtype, tied", [("float32", False), ("bfloat16", True)])
def test_transformers_opens_a_saved_llama_with_the_same_logits(tmp_path, dtype, tied):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    same_for_transformers(tmp_path / "base", tmp_path / "new", dtype)


@needs_stories
def test_transformers_opens_a_saved_real_model_with_the_same_logits(tmp_path):
    transformers = pytest.importorskip("transformers")
    same_for_transformers(STORIES, tmp_path / "new", "float32")
    assert len(list((tmp_path / "new").glob("*.safetensors"))) > 10
    text = "Once upon a time, there was a little dog named Max."
    ids = [
        transformers.AutoTokenizer.from_pretrained(folder)(text).input_ids
        for folder in (STORIES, tmp_path / "new")
    ]
    assert ids[0] == ids[1] and len(ids[0]) > 10


@needs_stories
def test_a_real_model_is_loaded_as_torch_reads_it(tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    reference = load_file(STORIES / SINGLE)
    wanted = {name: tuple(value.shape) for name, value in reference.items()}
    assert HEAD not in wanted and re.search(r"layers\.4\.", "".join(wanted))
    loaded = load_tensors(STORIES, wanted, "bfloat16", tied=(HEAD,))
    for name, value in loaded.items():
        expected = reference[name].bfloat16().float().numpy()
        np.testing.assert_array_equal(np.asarray(value, np.float32), expected)
