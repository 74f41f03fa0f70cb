"""Ranks and density from logged scores: against hand-worked values and simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from thicket_jax.analysis import density, intervals
from thicket_jax.errors import ArgumentError


def test_rank_ties_and_failures():
    nan = np.nan
    scores = np.array([0.5, nan, 2.0, 0.5, 9.0, -np.inf, 2.0])
    failed = np.array([False, True, False, False, True, False, False])
    # Best first: 2, 6 (tie, later), 0, 3 (tie, later), then the failed 1, 4, 5 in their order.
    assert density.rank(scores, failed).tolist() == [2, 4, 0, 3, 5, 6, 1]


def test_rank_against_a_slow_reference():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = rng.integers(0, 4, 30).astype(float)
        failed = rng.random(30) < 0.2
        order = sorted(range(30), key=lambda i: (failed[i], 0 if failed[i] else -scores[i], i))
        ranks = density.rank(scores, failed)
        assert [order.index(i) for i in range(30)] == ranks.tolist()


def test_density_by_hand():
    scores = np.array([1.0, 2.0, 3.0, np.nan, 2.0, 0.0])
    failed = np.array([False, False, False, True, False, False])
    sigmas = np.array([0.002, 0.002, 0.002, 0.002, 0.001, 0.001], np.float32)
    small, large = density.density(scores, failed, sigmas, base=2.0)
    assert small["sigma"] == 0.001  # the decimal that was typed, not float32's 0.0010000000475
    assert (small["n"], small["mean"]) == (2, 1.0)
    assert (small["fraction_ge"], small["fraction_gt"]) == (0.5, 0.0)
    assert (large["sigma"], large["n"], large["mean"]) == (0.002, 4, 2.0)
    assert (large["fraction_ge"], large["fraction_gt"]) == (0.5, 0.25)  # the failed one is below
    assert large["interval"] == pytest.approx(list(intervals.wilson_interval(2, 4)))
    assert set(large) == {"sigma", "n", "mean", "fraction_ge", "fraction_gt", "interval"}


def test_density_where_all_or_the_base_failed():
    sigmas, failed = np.array([0.1, 0.1, 0.2]), np.array([True, True, False])
    bad, good = density.density(np.array([1.0, 1.0, -5.0]), failed, sigmas, base=math.nan)
    assert math.isnan(bad["mean"])
    assert (bad["n"], bad["fraction_ge"], bad["fraction_gt"]) == (2, 0.0, 0.0)
    assert (good["fraction_ge"], good["fraction_gt"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: density.rank(np.ones(2), np.zeros(3, bool)), "failed"),
        (lambda: density.density(np.ones(2), np.zeros(2, bool), np.ones(3), 0.0), "sigmas"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_density_curve_by_hand():
    scores = np.array([1.0, 2.0, 3.0, np.nan, 2.0, 0.0])
    failed = np.array([False, False, False, True, False, False])
    sigmas = np.array([0.002, 0.002, 0.002, 0.002, 0.001, 0.001], np.float32)
    rows = density.density_curve(scores, failed, sigmas, 2.0, [1, 0, -1, 0])
    assert [(r["sigma"], r["margin"], r["n"]) for r in rows] == [
        (0.001, -1, 2), (0.001, 0, 2), (0.001, 1, 2), (0.002, -1, 4), (0.002, 0, 4), (0.002, 1, 4),
    ]  # fmt: skip
    assert [r["fraction_ge"] for r in rows] == [0.5, 0.5, 0, 0.75, 0.5, 0.25]
    assert [r["fraction_gt"] for r in rows] == [0.5, 0, 0, 0.5, 0.25, 0]
    assert rows[3]["fraction_ge_interval"] == list(intervals.wilson_interval(3, 4))
    assert rows[3]["fraction_gt_interval"] == list(intervals.wilson_interval(2, 4))
    wider = density.density_curve(scores, failed, sigmas, 2.0, [0], confidence=0.99)
    assert wider[0]["fraction_ge_interval"] == list(intervals.wilson_interval(1, 2, 0.99))


def test_density_curve_at_margin_0_is_density():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, 90) / np.float32(6)
    failed, sigmas = rng.random(90) < 0.1, rng.choice([0.1, 0.2, 0.3], 90)
    old = density.density(scores, failed, sigmas, 0.5)
    new = density.density_curve(scores, failed, sigmas, 0.5, [0])
    for a, b in zip(old, new, strict=True):
        names = ("sigma", "n", "fraction_ge", "fraction_gt")
        assert [a[x] for x in names] == [b[x] for x in names]
        assert a["interval"] == b["fraction_ge_interval"]


def test_density_curve_counts_float32_means_where_they_stand():
    # Accuracies over 50 items, as the log holds them, at margins as a person types them.
    counts = np.arange(51)
    scores = (counts / np.float32(50)).astype(np.float32).astype(np.float64)
    failed, sigmas = np.zeros(51, bool), np.full(51, 0.1)
    margins = [m / 50 for m in range(-14, 35)]
    rows = density.density_curve(scores, failed, sigmas, float(np.float32(0.3)), margins)
    for row in rows:
        threshold = 15 + round(50 * row["margin"])
        assert row["fraction_ge"] == (counts >= threshold).sum() / 51
        assert row["fraction_gt"] == (counts > threshold).sum() / 51


def test_density_curve_of_failures_and_of_one_expert():
    nothing = density.density_curve(np.full(3, np.nan), np.ones(3, bool), np.ones(3), 0.0, [-9])
    assert (nothing[0]["fraction_ge"], nothing[0]["n"]) == (0, 3)
    one = density.density_curve(np.ones(1), np.zeros(1, bool), np.ones(1), math.nan, [0, 5])
    assert [row["fraction_gt"] for row in one] == [1, 1]  # the base itself failed
    assert density.density_curve(np.ones(0), np.zeros(0, bool), np.ones(0), 0.0, [0]) == []


def test_density_curve_covers_the_truth():
    # Scores are normal around a base of 0; δ(m) = 1 − Φ(m / sigma).
    rng = np.random.default_rng(5)
    sigmas = np.repeat([1.0, 2.0], 100)
    hits = np.zeros(6)
    for _ in range(300):
        scores = rng.normal(size=200) * sigmas
        rows = density.density_curve(scores, np.zeros(200, bool), sigmas, 0.0, [0, 1, 2.5])
        for i, row in enumerate(rows):
            low, high = row["fraction_gt_interval"]
            hits[i] += low <= scipy.stats.norm.sf(row["margin"] / row["sigma"]) <= high
    assert ((hits / 300 > 0.91) & (hits / 300 < 0.995)).all(), hits


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (
            lambda: density.density_curve(np.ones(2), np.zeros(2, bool), np.ones(3), 0.0, [0]),
            "sigmas",
        ),
        (
            lambda: density.density_curve(
                np.ones(2), np.zeros(2, bool), np.ones(2), 0.0, [math.inf]
            ),
            "margins=.inf",
        ),
        (
            lambda: density.density_curve(
                np.ones(2), np.zeros(2, bool), np.ones(2), 0.0, [0], confidence=2
            ),
            "confidence=2",
        ),
    ],
)
def test_bad_input_of_a_curve_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
