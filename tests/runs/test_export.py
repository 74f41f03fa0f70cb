"""An expert of a language model as a checkpoint: the bits that were scored, and no log needed."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language_models import make_checkpoint
from language_tasks import InProcess

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.experts.leaves import leaf_rows, make_plan
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import implicit
from thicket_jax.runs import export
from thicket_jax.tasks import registry
from thicket_jax.tasks.language import shared
from thicket_jax.text import pretrained
from thicket_jax.text.model import forward

pytestmark = pytest.mark.usefixtures("undrawn")
# Matrices of few shapes, so that few programs are compiled; what they hold differs.
SHAPE = {"intermediate_size": 16, "num_key_value_heads": 2}
COMMON = "--num 3 --k 1,2 --train-items 2 --test-items 2 --max-tokens 2 --sigma 0.1 --quiet"


def run_stories(folder, *words):
    out = folder / "run"
    words = ["run", "stories", "--model", str(folder / "model"), *COMMON.split(), *words]
    with pytest.MonkeyPatch.context() as patch:  # a worker takes a second to start
        patch.setattr(shared, "Graders", InProcess)
        assert main([*words, "--out", str(out), "--backend", "none"]) == 0
    # What an export reads is experts.json, config.json and the base; nothing else is left.
    shutil.rmtree(out / "log")
    (out / "items.npz").unlink()
    return out


LOW_RANK = ("--noise", "low_rank")


@pytest.mark.parametrize(
    ("precision", "noise"), [("float32", ()), ("bfloat16", LOW_RANK)], ids=["float32", "low rank"]
)
def test_an_exported_expert_is_the_bits_that_were_scored(precision, noise, tmp_path, capsys):
    base = make_checkpoint(tmp_path / "model", **SHAPE)
    run = run_stories(tmp_path, "--precision", precision, *noise)
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 0
    best = export.load_population(run)[0]
    wanted = tj.perturb(pretrained.load(base, precision).params, best)
    found = pretrained.load(tmp_path / "best")
    assert found.dtype == "float32"  # low rank does not round matrices of 16 bits
    for (name, one), (_, other) in zip(leaf_rows(found.params), leaf_rows(wanted), strict=True):
        assert other.dtype == ("float32" if other.ndim > 1 or not noise else precision)
        assert np.asarray(one).tobytes() == np.asarray(other, "float32").tobytes(), name
    modes = {path.stat().st_mode for path in (tmp_path / "best").glob("*.[js]*")}
    assert len(modes) == 1, "the weights are as readable as the config"
    notes = json.loads((tmp_path / "best" / "thicket.json").read_text())
    assert notes["experts"]["ids"] == [int(best.ids)] and notes["rank"] == 1
    if noise:
        config = json.loads((run / "config.json").read_text())
        assert config["options"]["rounded"] is config["noise"]["rounded"] is False
        assert json.loads((tmp_path / "best" / "config.json").read_text())["dtype"] == "float32"
        check_merge(run, tmp_path / "merged", base, precision, "--dtype", "float32")
        check_scores(base, found, best)
    else:
        check_transformers_opens(tmp_path / "best", found)
        check_merge(run, tmp_path / "merged", base, precision)
    capsys.readouterr()
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    words = ["export", str(run), "--rank", "1", "--to", str(tmp_path / "new"), "--dtype", "float32"]
    assert main(words) == 2
    assert "dtype='float32' is of merges" in capsys.readouterr().err
    if not noise:
        check_a_changed_base(run, base, tmp_path / "changed", capsys)


def check_scores(base, exported, expert):
    """What is scored in 16 bits is the exported float32, up to the rounding of the model itself."""
    model = pretrained.load(base, "bfloat16")
    tokens = jnp.asarray(np.random.default_rng(0).integers(2, 40, (4, 12)), jnp.int32)
    places = jnp.broadcast_to(jnp.arange(12, dtype=jnp.int32)[None], (4, 12))
    seen = jnp.broadcast_to(jnp.tril(jnp.ones((12, 12), bool))[None], (4, 12, 12))

    def logits(pretrained_model, params):
        return forward(pretrained_model.config, params, tokens, places, None, seen)[0]

    plan = make_plan(model.params, expert.noise)
    scales = leaf_scales(model.params, plan)
    own = jax.jit(functools.partial(logits, model))
    scored = jax.jit(lambda e: implicit.evaluate(own, model.params, e, scales, plan))(expert)
    exact = jax.jit(functools.partial(logits, exported))
    wide = jax.tree.map(lambda x: np.asarray(x, np.float32), model.params)
    wanted, theta = exact(exported.params), exact(wide)
    found, scored, wanted, theta = (
        np.asarray(x, np.float32) for x in (own(model.params), scored, wanted, theta)
    )
    rounding, error, effect = (
        np.sqrt(np.square(x).mean()) for x in (found - theta, scored - wanted, wanted - theta)
    )
    assert error < 2 * rounding < 0.2 * effect


def check_merge(run, to, base, precision, *words):
    assert main(["export", str(run), "--merge", "2", "--to", str(to), *words]) == 0
    dtype = words[1] if words else None
    params = pretrained.load(base, precision).params
    wanted = tj.merge(params, export.load_population(run)[:2], dtype=dtype)
    for (name, one), (_, other) in zip(
        leaf_rows(pretrained.load(to).params), leaf_rows(wanted), strict=True
    ):
        assert np.asarray(one).tobytes() == np.asarray(other, "float32").tobytes(), name


def check_transformers_opens(folder, ours):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensors = dict(leaf_rows(ours.params))
    for name, tensor in theirs.state_dict().items():
        if name in tensors:
            np.testing.assert_array_equal(tensor.numpy(), np.asarray(tensors[name]))
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token == "</s>"


def check_a_changed_base(run, base, to, capsys):
    """It is not exported."""
    shutil.rmtree(base)
    make_checkpoint(base, **SHAPE, tie_word_embeddings=False)
    assert main(["export", str(run), "--rank", "1", "--to", str(to)]) == 2
    assert "not those of" in capsys.readouterr().err
    assert not to.exists()


def test_new_runs_in_16_bits_are_not_rounded_and_older_ones_are_what_they_were(tmp_path):
    stories = registry.module("stories").Options
    base = {"model": str(make_checkpoint(tmp_path / "model", dtype="bfloat16"))}
    for options, rounded in (
        ({"noise": "low_rank"}, False),
        ({"noise": "low_rank", "precision": "float16"}, False),
        ({"noise": "low_rank", "precision": "float32"}, True),
        ({"noise": "low_rank", "rounded": True}, True),
        ({"noise": "gaussian"}, True),
    ):
        found = stories(**base, **options).resolved()
        assert found.law().rounded is rounded
        recorded = found.to_json()
        assert recorded.get("rounded", True) is rounded
        # As a run is resumed: of an older one, nothing was recorded.
        again = stories(**{n: tuple(x) if isinstance(x, list) else x for n, x in recorded.items()})
        assert again.law() == found.law()
        recorded.pop("rounded", None)
        older = stories(**{n: tuple(x) if isinstance(x, list) else x for n, x in recorded.items()})
        assert older.law().rounded
