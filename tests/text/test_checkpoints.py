"""Hugging Face folders: loading tensor by tensor, saving what transformers opens, bad folders."""

import contextlib
import itertools
import json
import pathlib
import pickle
import re
import struct
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.checkpoints import load_tensors, save_checkpoint
from thicket_jax.text.tensor_files import stored_tensors

pytest.importorskip("safetensors")
from safetensors import safe_open
from safetensors.numpy import save_file

STORIES = pathlib.Path(__file__).parents[3] / "shared" / "models" / "stories260K"
needs_stories = pytest.mark.skipif(
    not STORIES.is_dir(), reason="needs the model in shared/models/stories260K"
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def weights(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {
        EMBEDDING: (16, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.bias": (8,),
        "model.layers.1.mlp.up_proj.weight": (24, 8),
        "model.norm.weight": (8,),
        HEAD: (16, 8),
    }
    return {k: rng.normal(size=s).astype(jnp.dtype(dtype)) for k, s in shapes.items()}


def shapes_of(tensors):
    return {name: value.shape for name, value in tensors.items()}


def make_folder(folder, tensors, shards=1, **config):
    """Writes a checkpoint as the Hub has them; `shards` files, dealt out in turn."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    if shards == 1:
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
        return folder
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(itertools.islice(tensors.items(), i, None, shards))
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def stored_bytes(folder):
    """(dtype, shape, bytes) of every tensor, read from the files without our code."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        header.pop("__metadata__")
        for name, entry in header.items():
            assert name not in found
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = (entry["dtype"], tuple(entry["shape"]), raw[start:stop])
    return found


def refusal(error, act):
    with pytest.raises(error) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    return text


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


def test_a_tied_head_is_compared_to_its_last_row(tmp_path):
    table = np.zeros((5 * 2**20, 1), ml_dtypes.bfloat16)
    head = table.copy()
    head[-1] = 1
    folder = make_folder(tmp_path / "base", {EMBEDDING: table, HEAD: head})
    wanted = {EMBEDDING: table.shape}
    text = refusal(DataError, lambda: load_tensors(folder, wanted, "bfloat16", tied=(HEAD,)))
    assert "differs" in text


# Bad folders.


def truncate(path, count):
    path.write_bytes(path.read_bytes()[:count])


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def shard(number):
    return f"model-{number:05d}-of-00002.safetensors"


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
# What a user may have on disk: (number of shards, what happened to it, what the error says).
BAD = {
    "no weights": (1, lambda d: (d / SINGLE).unlink(), ["no weights", SINGLE, INDEX]),
    "an adapter alone": (
        1,
        lambda d: (d / SINGLE).rename(d / "adapter_model.safetensors"),
        ["no weights", "adapter_model.safetensors"],
    ),
    "truncated": (1, lambda d: truncate(d / SINGLE, -5), [SINGLE, "truncated"]),
    "truncated in the header": (1, lambda d: truncate(d / SINGLE, 40), [SINGLE, "truncated"]),
    "empty": (1, lambda d: truncate(d / SINGLE, 0), [SINGLE, "truncated"]),
    "a truncated shard": (2, lambda d: truncate(d / shard(2), -1), [shard(2), "truncated"]),
    "garbage": (1, lambda d: (d / SINGLE).write_bytes(b"\x07garbage" * 9), [SINGLE, "truncated"]),
    "no tensors": (1, lambda d: save_file({}, d / SINGLE), [SINGLE, "no tensors"]),
    "a header that is not JSON": (
        1,
        lambda d: (d / SINGLE).write_bytes(struct.pack("<Q", 8) + b"notjson!"),
        [SINGLE, "truncated or no safetensors"],
    ),
    "a Git LFS pointer": (
        1,
        lambda d: (d / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n"),
        [SINGLE, "git lfs pull"],
    ),
    "a missing shard": (2, lambda d: (d / shard(2)).unlink(), [shard(2), "missing"]),
    "an index that is not JSON": (2, lambda d: truncate(d / INDEX, 30), [INDEX, "JSON"]),
    "an index that is a list": (2, lambda d: (d / INDEX).write_text("[]"), [INDEX, "list"]),
    "an index without a map": (2, lambda d: (d / INDEX).write_text("{}"), [INDEX, "weight_map"]),
    "an index that leaves the folder": (
        2,
        lambda d: edit_index(d, lambda m: m.update({NORM: "../other.safetensors"})),
        [INDEX, NORM, "../other.safetensors"],
    ),
    "an index that names the wrong shard": (
        2,
        lambda d: edit_index(d, lambda m: m.update({NORM: shard(2)})),
        [shard(1), NORM, shard(2)],
    ),
    "a tensor that the index does not list": (
        2,
        lambda d: edit_index(d, lambda m: m.pop(NORM)),
        [shard(1), NORM, INDEX],
    ),
    "a tensor that no shard has": (
        2,
        lambda d: edit_index(d, lambda m: m.update({"model.x": shard(2)})),
        [shard(2), "model.x", INDEX],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_line_that_names_the_file(tmp_path, case):
    shards, spoil, said = BAD[case]
    tensors = weights()
    folder = make_folder(tmp_path / "base", tensors, shards)
    spoil(folder)
    placed = []
    for act in (
        lambda: load_tensors(folder, shapes_of(tensors), "float32", place=placed.append),
        lambda: save_checkpoint(folder, tmp_path / "new", tensors, notes={}),
    ):
        text = refusal(DataError, act)
        assert all(phrase in text for phrase in said), text
        assert str(folder) in text
    assert not placed and not (tmp_path / "new").exists()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: {k: v for k, v in t.items() if k != UP}, [UP, "has no tensor"]),
        (lambda t: t | {"model.layers.0.x.weight": np.ones(2, np.float32)}, ["0.x.weight"]),
        (lambda t: t | {UP: t[UP].T.copy()}, [UP, "[8, 24]", "[24, 8]"]),
        (lambda t: t | {UP: t[UP].astype(np.int8)}, [UP, "I8", "quantised"]),
        (lambda t: t | {UP: t[UP].astype(ml_dtypes.float8_e4m3fn)}, [UP, "F8_E4M3", "quantised"]),
        (lambda t: t | {UP: t[UP].astype(np.float64)}, [UP, "F64"]),
        (
            lambda t: t | {UP: t[UP].astype(np.int8), UP + "_scale": np.ones(24, np.float32)},
            [UP, "quantised"],
        ),
    ],
    ids=["missing", "unexpected", "shape", "int8", "fp8", "float64", "int8 and scale"],
)
def test_wrong_tensors_are_named_with_their_file(tmp_path, change, said, shards):
    tensors = weights()
    folder = make_folder(tmp_path / "base", change(tensors), shards)
    placed = []
    text = refusal(
        DataError,
        lambda: load_tensors(folder, shapes_of(tensors), "float32", place=placed.append),
    )
    assert all(phrase in text for phrase in said), text
    assert str(folder) in text and "safetensors" in text and not placed


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused_and_not_opened(tmp_path, name):
    folder = make_folder(tmp_path / "base", weights())
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "opened")))
    text = refusal(DataError, lambda: load_tensors(folder, {}, "float32"))
    assert name in text and "pickle checkpoints can run code; convert with safetensors" in text
    assert not (tmp_path / "opened").exists()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_a_folder_that_is_none(tmp_path):
    text = refusal(DataError, lambda: load_tensors("Qwen/Qwen2.5-0.5B", {}, "float32"))
    assert "Qwen/Qwen2.5-0.5B does not exist" in text and "folder" in text
    (tmp_path / "file").touch()
    assert "is a file" in refusal(DataError, lambda: stored_tensors(tmp_path / "file"))


@pytest.mark.parametrize("dtype", ["int8", "bf16", "float64", None])
def test_a_dtype_that_cannot_be_loaded(tmp_path, dtype):
    text = refusal(ArgumentError, lambda: load_tensors(tmp_path, {}, dtype))
    assert text.startswith("dtype=") and "float32, bfloat16, float16" in text


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "base", weights())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert 'pip install "thicket-jax[text]"' in refusal(DataError, lambda: stored_tensors(folder))


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
