"""Item noise in rankings: split halves against slow versions, formulas and simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from logged_runs import logged_run

from thicket_jax.analysis import reliability
from thicket_jax.errors import ArgumentError


def outcomes(n, B, wanted, rng):
    """Normal outcomes whose mean over B items has the reliability `wanted`."""
    noise = math.sqrt(B * (1 - wanted) / wanted)
    return rng.normal(size=(n, 1)) + noise * rng.normal(size=(n, B))


def rulon(a, b):
    """Split-half reliability of totals by Rulon: 1 − var(a − b) / var(a + b)."""
    return 1 - np.var(a - b, ddof=1) / np.var(a + b, ddof=1)


def test_split_half_by_hand():
    # Two items: the only halves are the items themselves.
    items = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 4.0], [4.0, 5.0]])
    r = np.corrcoef(items.T)[0, 1]
    found = reliability.split_half(items)
    assert found.half == pytest.approx(r)
    assert found.value == pytest.approx(2 * r / (1 + r))
    assert found.noise_share == pytest.approx(1 - found.value)
    assert (found.n, found.items) == (4, 2)


def test_an_odd_item_is_left_out_and_corrected_for():
    # Three items: any half is one item, any pair of halves two different ones.
    items = np.random.default_rng(0).normal(size=(9, 3)) + np.arange(9.0)[:, None]
    pairs = itertools.combinations(range(3), 2)
    r = np.mean([np.corrcoef(items[:, a], items[:, b])[0, 1] for a, b in pairs])
    found = reliability.split_half(items, splits=3000)
    assert found.half == pytest.approx(r, abs=0.004)
    assert found.value == pytest.approx(3 * found.half / (1 + 2 * found.half))


def test_split_half_against_a_slow_version():
    items = np.random.default_rng(1).random((20, 12)) + np.linspace(0, 1, 20)[:, None]
    left, right = reliability._halves(items, 6, 5, 3)
    for ranks, correlate in ((False, scipy.stats.pearsonr), (True, scipy.stats.spearmanr)):
        slow = np.mean([correlate(left[:, s], right[:, s]).statistic for s in range(5)])
        found = reliability.split_half(items, splits=5, ranks=ranks, draws=30, seed=3)
        assert found.half == pytest.approx(slow)
        counts = reliability.resampling.bootstrap_counts(20, 30, 4)
        resampled = []
        for count in counts:
            i = np.repeat(np.arange(20), count)
            r = np.mean([correlate(left[i, s], right[i, s]).statistic for s in range(5)])
            resampled.append(2 * r / (1 + r))
        expected = reliability.resampling.percentile_interval(np.array(resampled))
        assert found.interval == pytest.approx(expected)


def test_halves_are_disjoint_means():
    # One item is 1, the rest 0: it is in one half, in the other, or (odd B) in neither.
    items = np.zeros((3, 5))
    items[1, 2] = 1
    left, right = reliability._halves(items, 2, 400, 0)
    assert set(left[1]) == {0, 0.5}
    assert (left * right == 0).all()
    assert abs((left + right)[1].mean() / 0.5 - 0.8) < 0.08


def test_alpha_is_the_mean_of_all_splits():
    items = np.random.default_rng(2).normal(size=(15, 6)) + np.linspace(0, 2, 15)[:, None]
    halves = [set(x) for x in itertools.combinations(range(6), 3) if 0 in x]
    values = [
        rulon(items[:, sorted(h)].sum(1), items[:, sorted(set(range(6)) - h)].sum(1))
        for h in halves
    ]
    assert reliability.cronbach_alpha(items) == pytest.approx(np.mean(values))
    assert reliability.cronbach_alpha(np.repeat(items[:, :1], 4, 1)) == pytest.approx(1)


@pytest.mark.parametrize(("n", "B", "truth"), [(100, 40, 0.5), (200, 21, 0.8), (120, 30, 0.0)])
def test_reliability_of_a_known_truth_is_covered(n, B, truth):
    rng, hits, values = np.random.default_rng(3), 0, []
    for i in range(150):
        items = outcomes(n, B, truth, rng) if truth else rng.normal(size=(n, B))
        found = reliability.split_half(items, splits=20, draws=200, seed=i)
        low, high = found.interval
        hits += low <= truth <= high
        values.append(found.value)
    assert 0.885 < hits / 150 < 0.995  # .95 with a standard error of .018
    assert np.mean(values) == pytest.approx(truth, abs=0.02)


def test_reliability_of_ranks_covers_its_truth():
    # Halves of normal outcomes correlate by ρ; their ranks by 6/π·asin(ρ/2).
    rng, hits, half = np.random.default_rng(4), 0, 0.5 / 1.5
    r = 6 / math.pi * math.asin(half / 2)
    for i in range(100):
        found = reliability.split_half(
            outcomes(80, 20, 0.5, rng), splits=4, ranks=True, draws=100, seed=i
        )
        hits += found.interval[0] <= 2 * r / (1 + r) <= found.interval[1]
    assert 0.86 < hits / 100 <= 1


def test_one_divergent_expert_is_not_the_whole_correlation():
    rng = np.random.default_rng(5)
    items = -rng.exponential(size=(200, 20))
    items[0] = -3e30
    by_means = reliability.split_half(items, draws=5)
    by_ranks = reliability.split_half(items, ranks=True, splits=20, draws=5)
    assert by_means.value > 0.99
    assert abs(by_ranks.value) < 0.4


def test_failed_and_unscored_experts_are_left_out():
    items = outcomes(30, 8, 0.6, np.random.default_rng(6))
    alone = reliability.split_half(items[2:])
    items[0] = np.nan
    items[1, 3] = np.nan
    found = reliability.split_half(items)
    assert (found.n, found.value, found.interval) == (28, alone.value, alone.interval)
    failed = np.arange(30) < 2
    items[:2] = 7
    assert reliability.split_half(items, failed) == found
    assert reliability.cronbach_alpha(items, failed) == reliability.cronbach_alpha(items[2:])


@pytest.mark.parametrize(
    "items",
    [np.zeros((0, 4)), np.ones((1, 4)), np.ones((9, 1)), np.ones((9, 4)), np.full((9, 4), 0.1),
     np.full((9, 4), np.nan), np.zeros((9, 0))],
)  # fmt: skip
@pytest.mark.parametrize("ranks", [False, True])
def test_reliability_that_is_not_defined(items, ranks):
    found = reliability.split_half(items, ranks=ranks)
    assert math.isnan(found.value)
    assert found.interval == (-math.inf, math.inf)
    assert math.isnan(reliability.cronbach_alpha(items))
    row = reliability.reliability_curve(items, [1, 5], ranks=ranks)[1]
    assert math.isnan(row["predicted"])
    assert math.isnan(row["measured"])


def test_the_curve_measures_what_the_formula_predicts():
    items = outcomes(3000, 64, 0.8, np.random.default_rng(7))
    rows = reliability.reliability_curve(items, [1, 4, 16, 32, 64, 128], splits=20)
    for row in rows:
        m = row["items"]
        truth = m / (m + 16)  # 64/(64 + 16) = .8
        assert row["predicted"] == pytest.approx(truth, abs=0.02)
        if m <= 32:
            assert row["measured"] == pytest.approx(truth, abs=0.04)
        else:
            assert math.isnan(row["measured"])


def test_spearman_brown_and_its_inverse():
    assert reliability.spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert reliability.spearman_brown(0.3, 1) == pytest.approx(0.3)
    assert math.isnan(reliability.spearman_brown(-1, 2))
    for wanted in (0.1, 0.5, 0.95):
        m = reliability.items_for_reliability(0.4, 50, wanted)
        assert reliability.spearman_brown(0.4, m / 50) == pytest.approx(wanted)
    assert reliability.items_for_reliability(-0.1, 50, 0.9) == math.inf
    assert reliability.items_for_reliability(1.0, 50, 0.9) == 0
    assert math.isnan(reliability.items_for_reliability(math.nan, 50, 0.9))


def test_reliability_of_a_record():
    rng = np.random.default_rng(8)
    sigmas = np.tile([0.1, 0.2], 20)
    items = outcomes(40, 10, 0.6, rng)
    items[5] = np.nan
    run = logged_run(items, sigmas)
    rows = reliability.of_record(run)
    assert [row["sigma"] for row in rows] == [None, 0.1, 0.2]
    assert [row["n"] for row in rows] == [39, 20, 19]
    assert rows[0]["value"] == reliability.split_half(run.train).value
    errors = logged_run(items, sigmas, metric="mse")
    assert reliability.of_record(errors)[0]["value"] == (
        reliability.split_half(run.train, ranks=True).value
    )
    own = logged_run(items, sigmas, metric="mine", answers=np.ones((2, 3)), targets=np.ones(3))
    assert reliability.of_record(own) == rows
    with pytest.raises(ArgumentError, match="logged no outcomes"):
        reliability.of_record(logged_run(items, sigmas).__class__(run.config, run.experts))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: reliability.split_half(np.ones(3)), r"\[N, B\]"),
        (lambda: reliability.split_half(np.ones((3, 2)), np.ones(2, bool)), "failed"),
        (lambda: reliability.split_half(np.ones((3, 2)), confidence=0), "confidence=0"),
        (lambda: reliability.split_half(np.ones((3, 2)), splits=0), "splits=0"),
        (lambda: reliability.split_half(np.eye(4), draws=0), "draws=0"),
        (lambda: reliability.reliability_curve(np.ones((3, 2)), [0]), "sizes has 0"),
        (lambda: reliability.items_for_reliability(0.5, 3, 1.0), "wanted=1.0"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
