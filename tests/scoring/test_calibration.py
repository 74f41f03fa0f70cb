"""Sigma by what it does: against closed forms, a grid, and wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ScoreError

KEY = jax.random.key(7)
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)), jnp.float32)
PARAMS = {"w": jnp.ones((6, 4)), "steps": jnp.asarray(3)}


def linear(params, x):
    return x @ params["w"]


def calibrated(fn=linear, params=PARAMS, **options):
    settings = {"target": 0.2, "key": KEY, "num": 8, "backend": "none", "block_size": 4}
    return tj.calibrate_sigma(fn, params, X, **{**settings, **options})


@pytest.mark.parametrize("noise", [tj.gaussian(), tj.low_rank(1)], ids=["dense", "low rank"])
def test_a_linear_function_is_moved_in_proportion(noise):
    sigma = calibrated(noise=noise, tolerance=1e-3)
    experts = tj.population(KEY, 8, sigma, noise=noise)
    steps = [linear(tj.perturb(PARAMS, e), X) - linear(PARAMS, X) for e in experts]
    changes = [float(jnp.sqrt(jnp.square(step).mean())) for step in steps]
    assert np.mean(changes) == pytest.approx(0.2, rel=2e-3)
    assert calibrated(noise=noise, target=0.4, tolerance=1e-3) == pytest.approx(2 * sigma, rel=4e-3)


def test_kl_is_that_of_the_softmax():
    sigma = calibrated(measure="kl", target=0.05, tolerance=1e-3)
    divergences = []
    for expert in tj.population(KEY, 8, sigma):
        old, new = (
            np.asarray(jax.nn.log_softmax(linear(p, X)), np.float64)
            for p in (PARAMS, tj.perturb(PARAMS, expert))
        )
        divergences.append((np.exp(old) * (old - new)).sum(-1).mean())
    assert np.mean(divergences) == pytest.approx(0.05, rel=2e-3)


def test_outputs_that_break_down_count_as_too_far():
    def bounded(params, x):
        return jnp.where(jnp.abs(params["w"] - 1).max() < 0.5, x @ params["w"], jnp.nan)

    sigma = calibrated(bounded, target=0.05)
    assert 0 < sigma < 0.5


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"target": 0.0}, ArgumentError, "target=0.0 must be a positive number"),
        ({"target": float("nan")}, ArgumentError, "target=nan must be a positive number"),
        ({"measure": "l1"}, ArgumentError, "measure='l1' is unknown; choose one of: rms, kl"),
        ({"tolerance": 0}, ArgumentError, "tolerance=0 must be between 0 and 1"),
        ({"num": 0}, ArgumentError, "num=0 must be a whole number"),
        ({"fn": lambda p, x: (x @ p["w"]).argmax(-1)}, ScoreError, "one floating array, got int32"),
        ({"fn": lambda p, x: jnp.tanh(x @ p["w"]), "target": 3.0}, ArgumentError, "out of reach"),
        ({"fn": lambda p, x: x / (p["w"].sum() - 24)}, ScoreError, "NaN or infinite outputs"),
    ],
)
def test_wrong_input_is_one_line(options, error, says):
    with pytest.raises(error, match=says) as caught:
        calibrated(**options)
    assert "\n" not in str(caught.value)
