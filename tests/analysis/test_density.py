"""Numbers from logged scores: against hand-worked values, scipy, and simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from thicket_jax.analysis import density, intervals
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
    assert large["ci95"] == pytest.approx(list(intervals.wilson_interval(2, 4)))
    assert set(large) == {"sigma", "n", "mean", "fraction_ge", "fraction_gt", "ci95"}


def test_density_where_all_or_the_base_failed():
    sigmas, failed = np.array([0.1, 0.1, 0.2]), np.array([True, True, False])
    bad, good = density.density(np.array([1.0, 1.0, -5.0]), failed, sigmas, base=math.nan)
    assert math.isnan(bad["mean"])
    assert (bad["n"], bad["fraction_ge"], bad["fraction_gt"]) == (2, 0.0, 0.0)
    assert (good["fraction_ge"], good["fraction_gt"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: intervals.wilson_interval(3, 2), "successes=3"),
        (lambda: intervals.wilson_interval(1, 2, 1.0), "confidence=1.0"),
        (lambda: intervals.student_t_quantile(0), "degrees=0"),
        (lambda: intervals.paired_difference(np.ones(2), np.ones(3)), "same items"),
        (lambda: intervals.paired_difference(np.ones(0), np.ones(0)), "same items"),
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
    assert rows[3]["interval_ge"] == list(intervals.wilson_interval(3, 4))
    assert rows[3]["interval_gt"] == list(intervals.wilson_interval(2, 4))
    wider = density.density_curve(scores, failed, sigmas, 2.0, [0], confidence=0.99)
    assert wider[0]["interval_ge"] == list(intervals.wilson_interval(1, 2, 0.99))


def test_density_curve_at_margin_0_is_density():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, 90) / np.float32(6)
    failed, sigmas = rng.random(90) < 0.1, rng.choice([0.1, 0.2, 0.3], 90)
    old = density.density(scores, failed, sigmas, 0.5)
    new = density.density_curve(scores, failed, sigmas, 0.5, [0])
    for a, b in zip(old, new, strict=True):
        names = ("sigma", "n", "fraction_ge", "fraction_gt")
        assert [a[x] for x in names] == [b[x] for x in names]
        assert a["ci95"] == b["interval_ge"]


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
            low, high = row["interval_gt"]
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
