"""Steps that are rounded away: said once, with the share of weights that move, or refused."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import rounding
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.scales import leaf_scales

RNG = np.random.default_rng(0)
WEIGHTS = 0.3 * RNG.normal(size=(64, 64))
LAWS = {
    "gaussian": tj.gaussian(),
    "rademacher": tj.rademacher(),
    "low_rank": tj.low_rank(3),
    "unrounded": tj.low_rank(3, rounded=False),
}


def tree(dtype):
    return {"w": jnp.asarray(WEIGHTS, dtype), "n": jnp.asarray(3)}


def check(params, law, sigma, num=3):
    experts = tj.population(jax.random.key(0), num, sigma, noise=law)
    plan = make_plan(params, law)
    return rounding.check(params, plan, experts, leaf_scales(params, plan))


def shares(note):
    return [float(word) / 100 for word in re.findall(r"(\S+) %", note)]


@pytest.mark.parametrize(
    ("law", "dtype"),
    [
        *(("gaussian", dtype) for dtype in ("float16", "bfloat16", "float32")),
        ("rademacher", "float16"),
        ("rademacher", "bfloat16"),
        ("low_rank", "bfloat16"),
        ("low_rank", "float32"),
        ("unrounded", "float16"),
        ("unrounded", "bfloat16"),
    ],
)
def test_the_share_is_that_of_perturb(law, dtype):
    """At a sigma at which a few per cent of the weights move, and at one at which most do."""
    params, law = tree(dtype), LAWS[law]
    unit = 0.3 * float(jnp.finfo("float32" if not law.rounded else dtype).eps)
    experts = tj.population(jax.random.key(0), 8, unit / 20, noise=law)
    moved = np.stack([np.asarray(tj.perturb(params, expert)["w"]) for expert in experts])
    (note,) = check(params, law, unit / 20)
    assert f"sigma={np.float32(unit / 20):g}" in note and "'w'" in note and dtype in note
    share = float((moved != np.asarray(params["w"]).astype(moved.dtype)).mean())
    np.testing.assert_allclose(shares(note), share, atol=0.02)
    assert 0.01 < share < 0.3
    assert check(params, law, unit) == ()


def test_it_is_said_once_for_parameters_a_law_and_a_sigma(caplog):
    params, batch = {"w": jnp.asarray(WEIGHTS, "bfloat16")}, jnp.ones((2, 64))
    score = lambda p, x: (x @ p["w"].astype("float32")).mean(-1)  # noqa: E731

    def told(act):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "thicket_jax"):
            act()
        return [r.getMessage() for r in caplog.records if "half a unit" in r.getMessage()]

    experts = [tj.population(jax.random.key(seed), 4, (1e-4, 1)) for seed in range(3)]
    assert len(told(lambda: tj.score(score, params, experts[0], batch))) == 1
    assert not told(lambda: tj.score(score, params, experts[1], batch))
    scorer = tj.Scorer(score, params, tj.gaussian(), batch)
    assert len(told(lambda: scorer(experts[0]))) <= 1
    assert not told(lambda: scorer(experts[2]))
    other = tj.population(jax.random.key(0), 4, 2e-4)
    assert len(told(lambda: scorer(other))) == 1


def test_no_expert_that_differs_is_refused_before_any_scoring(tmp_path):
    params, batch = tree("bfloat16"), jnp.ones((2, 64))
    for law in LAWS.values():
        if law.rounded:
            with pytest.raises(ArgumentError) as caught:
                check(params, law, 1e-9)
            text = str(caught.value)
            assert "\n" not in text and "sigma=1e-09" in text and "bfloat16" in text
            assert ("rounded=False" in text) == law.factored
    assert check(params, LAWS["unrounded"], 1e-9)  # a few small weights move: said, not refused
    with pytest.raises(ArgumentError, match="no expert differs"):
        check({"w": jnp.ones(8)}, tj.gaussian(), 1e-30)
    experts = tj.population(jax.random.key(0), 4, 1e-9)
    score = lambda p, x: (x @ p["w"].astype("float32")).mean(-1)  # noqa: E731
    for act in (
        lambda: tj.score(score, params, experts, batch),
        lambda: tj.Scorer(score, params, tj.gaussian(), batch)(experts),
        lambda: tj.halving(score, params, experts, batch, 1, budget=0.7),
        lambda: tj.randopt(
            score, params, batch, key=jax.random.key(0), num=4, k=1, sigma=1e-9,
            run_dir=tmp_path / "run",
        ),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match="no expert differs from the base"):
            act()
    assert not (tmp_path / "run").exists()


def test_one_weight_that_moves_is_enough_and_the_base_alone_is_no_population_to_check():
    """Of 100,000 weights one is small enough: no sample need find it, some expert moves it."""
    weights = np.ones(100_001, np.float32)
    weights[1] = 1e-9
    assert check({"w": jnp.asarray(weights, "bfloat16")}, tj.rademacher(), 1e-9)
    params, law = tree("bfloat16"), tj.gaussian()
    zero = tj.population(jax.random.key(0), 1, 1.0)
    zero = tj.Population(zero.key, zero.ids, zero.sigmas * 0, zero.signs, zero.noise)
    assert rounding.check(params, make_plan(params, law), zero, np.ones(2)) == ()


def test_a_run_records_what_was_told(tmp_path, monkeypatch):
    monkeypatch.setattr("thicket_jax.reports.figures.draw", lambda *_: [])
    score = lambda p, x: (x @ p["w"].astype("float32")).mean(-1)  # noqa: E731
    tj.randopt(
        score, tree("bfloat16"), jnp.ones((2, 64)), key=jax.random.key(0), num=8, k=1, sigma=1e-4,
        run_dir=tmp_path / "run", backend="none", block_size=4,
    )  # fmt: skip
    report = (tmp_path / "run" / "report.md").read_text()
    assert "is below half a unit in the last place of most weights" in report
