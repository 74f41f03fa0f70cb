"""Intervals: against hand-worked and published values, scipy, and simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from thicket_jax.analysis import intervals
from thicket_jax.errors import ArgumentError


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (1, 10, 0.0179, 0.4042),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17, 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_published_values(successes, n, low, high):
    assert intervals.wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_wilson_bounds_solve_the_score_equation(confidence):
    # The definition: at each bound p, |share - p| is z standard errors computed at p.
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    for successes, n in [(3, 7), (1, 50), (499, 500)]:
        for p in intervals.wilson_interval(successes, n, confidence):
            assert abs(successes / n - p) == pytest.approx(z * math.sqrt(p * (1 - p) / n))


def test_wilson_stays_inside_and_touches_the_ends():
    for n in (1, 3, 1000):
        low, high = intervals.wilson_interval(0, n)
        assert low == 0.0 < high < 1
        mirrored = intervals.wilson_interval(n, n)
        assert mirrored == pytest.approx((1 - high, 1.0))
        assert mirrored[1] == 1.0
    assert intervals.wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_covers_the_truth():
    # The paper's N per sigma, and shares near 0 where p ± 2 s.e. breaks down.
    rng = np.random.default_rng(0)
    for share in (0.01, 0.2, 0.5):
        draws = rng.binomial(333, share, 4000)
        bounds = {s: intervals.wilson_interval(int(s), 333) for s in np.unique(draws)}
        covered = np.mean([bounds[s][0] <= share <= bounds[s][1] for s in draws])
        assert 0.93 < covered < 0.985, share


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 255, 256, 5001])
def test_student_quantile_matches_scipy(degrees):
    for confidence in (0.5, 0.95, 0.999):
        expected = scipy.stats.t.ppf((1 + confidence) / 2, degrees)
        found = intervals.student_t_quantile(degrees, confidence)
        assert found == pytest.approx(expected, rel=1e-9)


def test_standard_error_by_hand():
    assert intervals.standard_error(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(
        math.sqrt(5 / 3) / 2
    )
    assert math.isnan(intervals.standard_error(np.array([1.0])))
    assert math.isnan(intervals.standard_error(np.array([])))
    assert math.isnan(intervals.standard_error(np.array([1.0, np.inf])))


def test_paired_difference_matches_scipy_and_uses_the_pairing():
    rng = np.random.default_rng(1)
    hard = rng.normal(size=40)
    a, b = hard + 0.1 + 0.01 * rng.normal(size=40), hard
    delta, (low, high) = intervals.paired_difference(a, b)
    reference = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert delta == pytest.approx((a - b).mean())
    assert (low, high) == pytest.approx((reference.low, reference.high))
    # Unpaired, the items' own spread would drown a difference this small.
    unpaired = scipy.stats.ttest_ind(a, b).confidence_interval(0.95)
    assert high - low < 0.05 * (unpaired.high - unpaired.low)


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, s = 1, t(2) = 4.302653.
    delta, interval = intervals.paired_difference(np.array([2, 4, 6]), np.array([1, 2, 3]))
    half = 4.302652729911275 / math.sqrt(3)
    assert delta == 2
    assert interval == pytest.approx((2 - half, 2 + half))


def test_paired_difference_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        delta, (low, high) = intervals.paired_difference(rng.normal(size=5), np.zeros(5))
        assert low < delta < high
        hits += low <= 0 <= high
    assert 0.93 < hits / 1000 < 0.97  # a normal interval would cover .88


def test_paired_difference_of_one_or_unbounded_items():
    assert intervals.paired_difference(np.array([3.0]), np.array([1.0])) == (
        2.0,
        (-math.inf, math.inf),
    )
    delta, interval = intervals.paired_difference(np.array([np.inf, 1]), np.array([1.0, 1]))
    assert math.isnan(delta)
    assert interval == (-math.inf, math.inf)
    same = intervals.paired_difference(np.ones(9), np.ones(9))
    assert same == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: intervals.wilson_interval(3, 2), "successes=3"),
        (lambda: intervals.wilson_interval(1, 2, 1.0), "confidence=1.0"),
        (lambda: intervals.student_t_quantile(0), "degrees=0"),
        (lambda: intervals.paired_difference(np.ones(2), np.ones(3)), "same items"),
        (lambda: intervals.paired_difference(np.ones(0), np.ones(0)), "same items"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
