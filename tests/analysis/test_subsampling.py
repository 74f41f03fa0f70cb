"""The best of n experts, from the log."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from best_of import best_of

from thicket_jax.analysis import subsampling
from thicket_jax.errors import ArgumentError

NORMAL_BEST = {2: 1 / math.sqrt(math.pi), 5: 1.1629645, 10: 1.5387527, 100: 2.5075936}


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (3, 2), (4, 4), (6, 1), (6, 3)])
def test_expected_top_is_the_mean_over_every_subset(n, k):
    scores = np.array([3.0, 1.0, 1.0, 7.0, -2.0, 0.5])
    every = itertools.combinations(scores, n)
    slow = np.mean([np.sort(subset)[-k:].mean() for subset in every])
    assert subsampling.expected_top(scores, n, k) == pytest.approx(slow)


def test_expected_top_of_other_values_than_the_scores():
    scores, values = np.array([3.0, 1.0, 1.0, 7.0]), np.array([10.0, 20.0, 40.0, 0.0])
    slow = []
    for subset in itertools.combinations(range(4), 3):
        best = sorted(subset, key=lambda i: (-scores[i], i))[:2]
        slow.append(values[best].mean())
    found = subsampling.expected_top(scores, 3, 2, values=values)
    assert found == pytest.approx(np.mean(slow))


def test_expected_top_at_its_ends():
    scores = np.random.default_rng(0).normal(size=5000)
    assert subsampling.expected_top(scores, 5000) == pytest.approx(scores.max())
    assert subsampling.expected_top(scores, 5000, 50) == pytest.approx(np.sort(scores)[-50:].mean())
    assert subsampling.expected_top(scores, 1) == pytest.approx(scores.mean())
    assert subsampling.expected_top(np.ones(9), 4, 2) == pytest.approx(1)
    assert subsampling.expected_top(np.array([2.0]), 1) == 2


def test_failed_experts_take_the_lowest_score():
    scores = np.array([5.0, np.nan, 1.0, 2.0, 100.0])
    failed = np.array([False, True, False, False, True])
    filled = np.array([5.0, 1.0, 1.0, 2.0, 1.0])
    for n, k in [(1, 1), (3, 2), (5, 5)]:
        assert subsampling.expected_top(scores, n, k, failed) == pytest.approx(
            subsampling.expected_top(filled, n, k)
        )


def test_expected_top_matches_the_known_normal_values():
    # A log of quantiles stands for the distribution itself.
    scores = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for n, expected in NORMAL_BEST.items():
        assert subsampling.expected_top(scores, n) == pytest.approx(expected, abs=2e-3)


def test_the_curve_rises_and_its_inverse_inverts():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 30, 150) / 30
    for k in (1, 4):
        curve = [subsampling.expected_top(scores, n, k) for n in range(k, 151)]
        assert (np.diff(curve) >= -1e-12).all()
        for gain in (-0.5, 0.0, 0.1, 0.3, 0.45):
            slow = [n for n, value in enumerate(curve, k) if value >= 0.5 + gain]
            expected = slow[0] if slow else None
            assert subsampling.experts_for_gain(scores, 0.5, gain, k) == expected
    assert subsampling.experts_for_gain(scores, 0.5, 0.6) is None
    assert subsampling.experts_for_gain(np.ones(5), 1.0, 0.0) == 1


def test_the_curve_of_a_log():
    scores = np.random.default_rng(2).normal(size=400)
    rows = subsampling.expected_top_curve(scores, [5, 20, 400], base=0.25, draws=100)
    assert [row["n"] for row in rows] == [5, 20, 400]
    for row in rows:
        assert row["expected"] == pytest.approx(subsampling.expected_top(scores, row["n"]))
        assert row["gain"] == pytest.approx(row["expected"] - 0.25)
    assert rows[1]["interval"][0] < rows[1]["expected"] < rows[1]["interval"][1]
    assert np.isnan(rows[2]["interval"]).all()  # 20 is a twentieth of 400
    assert math.isnan(subsampling.expected_top_curve(scores, [1])[0]["gain"])


def test_the_interval_against_a_slow_version():
    rng = np.random.default_rng(3)
    scores, failed = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.1
    (row,) = subsampling.expected_top_curve(scores, [6], 2, failed, draws=40, seed=5)
    ordered = np.sort(np.where(failed, scores[~failed].min(), scores))[::-1]
    counts = subsampling.resampling.bootstrap_counts(60, 40, 5)
    resampled = [subsampling.expected_top(np.repeat(ordered, c), 6, 2) for c in counts]
    expected = subsampling.resampling.percentile_interval(np.array(resampled))
    assert row["interval"] == pytest.approx(list(expected))


@pytest.mark.parametrize(("k", "n"), [(1, 5), (1, 10), (5, 50)])
def test_the_interval_covers_the_truth(k, n):
    rng, hits = np.random.default_rng(4), 0
    truth = best_of(scipy.stats.norm(), n)
    if k > 1:
        truth = np.sort(rng.normal(size=(20000, n)), axis=1)[:, -k:].mean()
    for i in range(100):
        (row,) = subsampling.expected_top_curve(rng.normal(size=200), [n], k, draws=200, seed=i)
        hits += row["interval"][0] <= truth <= row["interval"][1]
    assert 0.85 < hits / 100 < 0.995  # a little below .95 at a twentieth of the log


def test_resampling_agrees_with_the_formula():
    rng = np.random.default_rng(5)
    scores, failed = rng.normal(size=80), rng.random(80) < 0.2
    filled = np.where(failed, scores[~failed].min(), scores)
    rows = subsampling.resampled_top(
        scores, [10, 40, 80], 3, lambda i: filled[i].mean(), failed, draws=400
    )
    for row in rows:
        exact = subsampling.expected_top(scores, row["n"], 3, failed)
        assert abs(row["expected"] - exact) <= 4 * row["stderr"] + 1e-12
    assert rows[2]["spread"] == pytest.approx(0, abs=1e-12)
    seen = []
    subsampling.resampled_top(scores, [5], 5, lambda i: float(seen.append(i) or 0), failed, draws=9)
    for positions in seen:
        order = np.where(failed, -np.inf, scores)[positions]
        assert (order[:-1] >= order[1:]).all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: subsampling.expected_top(np.ones(3), 4), "n=4 of 3"),
        (lambda: subsampling.expected_top(np.ones(3), 2, 3), "k=3 and n=2"),
        (lambda: subsampling.expected_top(np.ones(3), 1, 0), "k=0"),
        (lambda: subsampling.expected_top(np.full(3, np.nan), 1), "all 3 experts failed"),
        (lambda: subsampling.expected_top(np.ones(0), 1), "all 0 experts failed"),
        (lambda: subsampling.expected_top(np.ones(3), 1, failed=np.ones(2, bool)), "failed"),
        (lambda: subsampling.expected_top(np.ones(3), 1, values=np.ones(2)), "values"),
        (
            lambda: subsampling.expected_top(np.ones(2), 1, values=np.array([1, np.nan])),
            "values",
        ),
        (lambda: subsampling.expected_top_curve(np.ones(3), [1], confidence=1.5), "confidence"),
        (lambda: subsampling.experts_for_gain(np.ones(3), math.nan, 0.1), "base=nan"),
        (lambda: subsampling.experts_for_gain(np.ones(3), 0.0, 0.1, 4), "k=4"),
        (lambda: subsampling.resampled_top(np.ones(3), [4], 1, lambda i: 0.0), "n=4 of 3"),
        (
            lambda: subsampling.resampled_top(np.ones(3), [2], 1, lambda i: 0.0, draws=0),
            "draws=0",
        ),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
