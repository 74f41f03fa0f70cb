"""Families of signals: their formulas, ranges and keys."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks.signals import families

KEY = jax.random.key(11)


def curve(name, x, p):
    """The formula of a family at one x, in double precision."""
    if name == "line":
        return p["slope"] * x + p["intercept"]
    a, phase, offset = p["amplitude"], p["phase"], p["offset"]
    if name == "sinusoid":
        y = math.sin(4 * x + phase)
    elif name == "squarewave":
        y = math.tanh(p["sharpness"] * math.sin(4 * x + phase))
    elif name == "sawtooth":
        weights = (1, -1 / 2, 0.33, -1 / 4)
        y = sum(w * math.sin((n + 1) * (4 * x + phase)) for n, w in enumerate(weights)) / 2
    elif name == "harmonic":
        y = 0.5 * math.sin(4 * x + phase) + 0.3 * math.sin(8 * x)
    elif name == "sigmoid":
        y = math.tanh(x / 10 + phase)
    return a * y + offset


RANGES = {
    "line": {"slope": (-0.5, 0.5), "intercept": (-1, 1)},
    "sinusoid": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "squarewave": {
        "amplitude": (0.2, 0.4),
        "sharpness": (4, 6),
        "phase": (0, math.tau),
        "offset": (-0.5, 0.5),
    },
    "sawtooth": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "harmonic": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "sigmoid": {"amplitude": (0.5, 1.5), "phase": (-math.pi, math.pi), "offset": (-0.5, 0.5)},
}
FAMILIES = tuple(RANGES)
NUM = 20_000


@pytest.fixture(scope="module")
def drawn():
    """What every family draws, in one program: few with their signals, and many."""

    @jax.jit
    def draw(key):
        return {
            name: (
                families.family_parameters(name, key, 5),
                families.family_batch(name, key, 5, 70),
                families.family_parameters(name, key, NUM),
                families.family_batch("one_" + name, key, 3, 70),
                families.family_batch("one_" + name, jax.random.key(0), 1, 70),
            )
            for name in FAMILIES
        }

    return jax.tree.map(np.asarray, draw(KEY))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_follows_its_formula(name, drawn):
    chosen, batch, *_ = drawn[name]
    assert batch.dtype == jnp.float32
    for row in range(5):
        parameters = {k: float(v[row, 0]) for k, v in chosen.items()}
        expected = [curve(name, -2.5 + 0.1 * t, parameters) for t in range(70)]
        np.testing.assert_allclose(batch[row], expected, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parameters_of_a_family_fill_their_ranges(name, drawn):
    num, many = NUM, drawn[name][2]
    assert set(many) == set(RANGES[name])
    columns = []
    for parameter, (low, high) in RANGES[name].items():
        unit = (np.asarray(many[parameter], np.float64)[:, 0] - low) / (high - low)
        assert -1e-6 <= unit.min() < 1e-3
        assert 1 - 1e-3 < unit.max() <= 1 + 1e-6
        assert abs(unit.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / num)
        assert abs(unit.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / num)
        columns.append(unit)
    off_diagonal = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(num)


def test_mixed_draws_one_of_the_six_per_sequence():
    """Each family is told by what it alone satisfies, from the points themselves."""
    num = 6000
    mixed = np.asarray(families.family_batch("mixed", KEY, num, 158), np.float64)
    counts = dict.fromkeys(FAMILIES, 0)
    phase = 4 * (-2.5 + 0.1 * np.arange(158))
    waves = [np.ones(158), *(f(n * phase) for n in range(1, 5) for f in (np.sin, np.cos))]
    fit, *_ = np.linalg.lstsq(np.stack(waves, 1), mixed.T, rcond=None)
    residual = np.abs(mixed.T - np.stack(waves, 1) @ fit).max(0)
    size = np.hypot(fit[1::2], fit[2::2])  # of the harmonics 1 to 4
    for row in range(num):
        if np.abs(np.diff(mixed[row], 2)).max() < 1e-5:
            counts["line"] += 1
        elif (np.diff(np.sign(np.diff(mixed[row]))) == 0).all() or np.ptp(mixed[row]) < 0.01:
            counts["sigmoid"] += 1
        elif residual[row] > 1e-3:
            counts["squarewave"] += 1
        elif size[1, row] < 1e-3:
            counts["sinusoid"] += 1
        elif size[2, row] < 1e-3:
            counts["harmonic"] += 1
        else:
            counts["sawtooth"] += 1
    expected, spread = num / 6, math.sqrt(num * 5 / 36)
    # A sigmoid far out on its shoulder is a line to single precision, so the two are pooled.
    pooled = counts.pop("line") + counts.pop("sigmoid")
    assert abs(pooled - 2 * expected) < 5 * math.sqrt(num * 2 / 9)
    assert all(abs(count - expected) < 5 * spread for count in counts.values()), counts


ONES = {
    "line": {"slope": -0.25, "intercept": 0},
    "sinusoid": {"amplitude": 0.5, "phase": 0, "offset": 0},
    "squarewave": {"amplitude": 0.3, "sharpness": 5, "phase": 0, "offset": 0},
    "sawtooth": {"amplitude": 1, "phase": 0, "offset": 0},
    "harmonic": {"amplitude": 1, "phase": 0, "offset": 0},
    "sigmoid": {"amplitude": 1, "phase": 0, "offset": 0},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_one_signal_is_the_same_whatever_the_key(name, drawn):
    batch, other = drawn[name][3:]
    expected = [curve(name, -2.5 + 0.1 * t, ONES[name]) for t in range(70)]
    np.testing.assert_allclose(batch[0], expected, atol=2e-5)
    assert (batch == other).all()


def test_a_batch_is_a_function_of_its_key():
    first, again, other = (
        np.asarray(families.family_batch("mixed", jax.random.key(seed), 32, 11))
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not (first == other).any()


@pytest.mark.parametrize("name", ["sine", "one_mixed", "xavier", "", "Line"])
def test_an_unknown_family_is_refused_with_the_known(name):
    with pytest.raises(ArgumentError, match=r"line, sinusoid, .*mixed, one_line"):
        families.family_batch(name, KEY, 2, 11)
