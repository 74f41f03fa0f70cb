"""The README's code runs, and says what it says."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from language_models import STORIES, make_checkpoint

import thicket_jax as tj
from thicket_jax.experts.leaves import leaf_rows
from thicket_jax.text import pretrained

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
*OWN_MODELS, DECODING, REBUILDING, LOW_RANK, PLANE = BLOCKS
PLAIN = {"nnx": OWN_MODELS[0], "linen": OWN_MODELS[1], "dict": OWN_MODELS[2]}
PLAIN |= {"rank": LOW_RANK, "plane": PLANE}
needs_stories = pytest.mark.skipif(
    not STORIES.is_dir(), reason=f"the model stories260K is not at {STORIES}"
)


@pytest.mark.parametrize("name", PLAIN)
def test_the_readmes_code_runs_in_a_plain_world(name, monkeypatch):
    """In a plain JAX, without the strict settings of these tests; blocks are not looked for."""
    monkeypatch.setattr("thicket_jax.mapping.calls._MOST_BLOCK", 1)
    block = PLAIN[name]
    assert len(block.strip().splitlines()) <= 20
    names = {}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(compile(block, "README.md", "exec"), names)
    if "labels" in names:
        assert names["labels"].shape == (256,)
        assert names["result"].table["ensemble"][-1]["k"] == 10
    if "law" in names:
        assert names["axes"] == () and names["scores"].items.shape == (1024, 8)
    if "plane" in names:
        best = tj.score(names["score"], names["params"], names["best"], names["x"]).values
        theta = np.asarray(names["score"](names["params"], names["x"])).mean()
        marked = [names["values"][row, column] for row, column in ((10, 20), (20, 10), (10, 10))]
        np.testing.assert_allclose(marked, [*best[:2], theta], rtol=1e-5)
    if "curve" in names:
        assert names["curve"].shape == (64, 1)
        assert names["result"].scores.values.max() > names["result"].table["base"]["train"]
    if "theta" in names:
        assert len(names["experts"]) == 10
        gain = names["score"](names["theta"], names["batch"]).mean()
        assert gain > names["score"](names["params"], names["batch"]).mean()


@needs_stories
def test_the_readmes_decoding_continues_a_story():
    names = {}
    exec(compile(DECODING.replace('"stories260K"', repr(str(STORIES))), "README.md", "exec"), names)
    assert names["text"].startswith("Max loved to play with his toys")


@pytest.mark.parametrize(("law", "scale"), [("rademacher", "absolute"), ("gaussian", "relative")])
def test_the_readmes_script_makes_an_expert_again(law, scale, tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    params = pretrained.load(folder).params
    noise = getattr(tj, law)(scale=scale)
    experts = tj.population(jax.random.key(5), 4, 0.1, noise=noise, antithetic=True)
    recipe = experts.to_json()
    columns = {name: recipe.pop(name) for name in ("ids", "sigmas", "signs")}
    rows = [
        {"id": i, "sigma": s, "sign": g, "rank": 3 - place}
        for place, (i, s, g) in enumerate(zip(*columns.values(), strict=True))
    ]
    (tmp_path / "experts.json").write_text(json.dumps({"population": recipe, "experts": rows}))
    code = REBUILDING.replace('"runs/stories/experts.json"', repr(str(tmp_path / "experts.json")))
    code = code.replace('"stories260K/model.safetensors"', repr(str(folder / "model.safetensors")))
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    tensors = dict(leaf_rows(tj.perturb(params, experts[3])))
    wanted = np.asarray(tensors[names["tensor"]])
    if law == "rademacher":
        np.testing.assert_array_equal(names["rebuilt"], wanted)
    np.testing.assert_allclose(names["rebuilt"], wanted, rtol=0, atol=3e-7)


def test_the_commands_of_the_readme_exist():
    for command in ("tasks", "run", "resume", "report", "export"):
        assert f"thicket {command}" in README
    assert "pip install . && thicket run signals" in README
    assert 'pip install ".[dev]" && pytest' in README
