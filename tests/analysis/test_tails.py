"""The best of n experts beyond the log, by the tail."""

import math

import numpy as np
import pytest
import scipy.stats
from best_of import best_of

from thicket_jax.analysis import subsampling, tails
from thicket_jax.errors import ArgumentError


def test_the_estimator_is_zhang_and_stephens():
    # Their algorithm, step by step, in their sign: k = −ξ.
    x = np.sort(np.random.default_rng(6).exponential(size=50))
    n = len(x)
    m = 20 + int(math.sqrt(n))
    star = x[int(n / 4 + 0.5) - 1]
    theta = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * star) for j in range(1, m + 1)]
    k = [-np.log(1 - t * x).mean() for t in theta]
    level = [n * (math.log(t / a) + a - 1) for t, a in zip(theta, k, strict=True)]
    weight = [1 / sum(math.exp(b - a) for b in level) for a in level]
    mean = sum(t * w for t, w in zip(theta, weight, strict=True))
    shape = np.log(1 - mean * x).mean()
    found = tails.fit_generalised_pareto(x)
    assert found[0] == pytest.approx(shape)
    assert found[1] == pytest.approx(-shape / mean)


def test_the_estimator_passes_through_an_exponential():
    # Of 36 exceedances with quartile 1 and maximum 3, the 7th point of 26 is
    # (1 − √(26/6.5))/3 + 1/3 = 0, an exponential exactly.
    y = np.concatenate([np.linspace(0.1, 1, 9), np.linspace(1.1, 3, 27)])
    assert y[8] == 1
    shape, scale = tails.fit_generalised_pareto(y)
    nudged = tails.fit_generalised_pareto(np.append(y[:-1], 3 + 1e-9))
    assert (float(shape), float(scale)) == pytest.approx(
        (float(nudged[0]), float(nudged[1])), rel=1e-6
    )
    zeros = np.concatenate([np.zeros(20), np.arange(1.0, 21.0)])
    assert np.isfinite(tails.fit_generalised_pareto(zeros)).all()


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.3, 0.8])
def test_the_estimator_finds_the_truth(shape):
    y = scipy.stats.genpareto(shape, scale=2.5).rvs((20, 4000), random_state=7)
    shapes, scales = tails.fit_generalised_pareto(y)
    # The standard errors of maximum likelihood are (1 + ξ)/√m and σ·sqrt(2(1 + ξ)/m).
    assert shapes.mean() == pytest.approx(shape, abs=4 * (1 + shape) / math.sqrt(80000))
    assert scales.mean() == pytest.approx(2.5, abs=10 * math.sqrt(2 * (1 + shape) / 80000))
    assert shapes.std() < 1.6 * (1 + shape) / math.sqrt(4000)
    alone = tails.fit_generalised_pareto(y[3])
    assert (float(alone[0]), float(alone[1])) == pytest.approx((shapes[3], scales[3]))


def test_the_estimator_agrees_with_maximum_likelihood():
    y = scipy.stats.genpareto(0.2).rvs(3000, random_state=8)
    shape, _, scale = scipy.stats.genpareto.fit(y, floc=0)
    found = tails.fit_generalised_pareto(y)
    assert found[0] == pytest.approx(shape, abs=0.01)
    assert found[1] == pytest.approx(scale, abs=0.02)


def test_fit_of_a_log_with_failures_and_ties():
    rng = np.random.default_rng(9)
    scores = np.round(rng.exponential(size=900), 2)
    scores[:100] = np.nan
    found = tails.fit_tail(scores, draws=50)
    alive = np.sort(scores[100:])[::-1]
    assert found.threshold == alive[90]
    assert found.exceedances == (alive > alive[90]).sum()
    assert found.n == 900
    assert found.rate == found.exceedances / 900
    assert found.shape_interval[0] < found.shape < found.shape_interval[1]
    assert found.scale_interval[0] < 1 < found.scale_interval[1]
    shapes, scales = tails.fit_generalised_pareto(alive[alive > alive[90]] - alive[90])
    assert (found.shape, found.scale) == (float(shapes), float(scales))
    failed = np.isnan(scores)
    same = tails.fit_tail(np.where(failed, 99.0, scores), failed, draws=50)
    assert same.shape == found.shape
    # The rate is drawn again as well: binomial(900, rate) / 900.
    rates = tails.fit_tail(scores, draws=2000).resamples[:, 2]
    spread = math.sqrt(found.rate * (1 - found.rate) / 900)
    assert rates.mean() == pytest.approx(found.rate, abs=4 * spread / math.sqrt(2000))
    assert rates.std() == pytest.approx(spread, rel=0.1)


def test_a_bounded_tail_ends_above_the_best():
    scores = scipy.stats.genpareto(-0.4, scale=2).rvs(20_000, random_state=14)  # at most 5
    found = tails.fit_tail(scores, draws=20)
    assert found.shape < 0
    assert scores.max() < found.endpoint
    assert found.endpoint == pytest.approx(5, abs=0.2)
    assert tails.expected_best(found, [10**9])[0]["expected"] == pytest.approx(
        found.endpoint, abs=0.01
    )


def test_the_mean_of_the_best_by_hand():
    # ξ = 0: u + σ(H_n + ln p). All experts exceed 0: an exponential, whose best of 3 is 1 + ½ + ⅓.
    one = np.ones(1)
    assert tails._mean_best(0 * one, 2 * one, one, 3) == pytest.approx(2 * (1 + 1 / 2 + 1 / 3))
    # ξ = −1: uniform on 0..σ, whose best of n is n/(n + 1).
    assert tails._mean_best(-one, one, one, 4) == pytest.approx(4 / 5)
    # ξ = ½: P(X > x) = (1 + x/2)^−2, whose mean is 2.
    assert tails._mean_best(one / 2, one, one, 1) == pytest.approx(2)
    assert tails._mean_best(one, one, one, 9) == math.inf
    # Continuous at 0.
    near = tails._mean_best(2e-6 * one, one, one / 10, 1000)
    assert near == pytest.approx(tails._mean_best(0 * one, one, one / 10, 1000), rel=1e-4)


def test_the_extrapolated_best_joins_the_logs():
    # At an n that the log knows well, the tail says what the formula of subsamples says.
    scores = np.random.default_rng(10).exponential(size=5000)
    tail = tails.fit_tail(scores, draws=50)
    for row in tails.expected_best(tail, [50, 200]):
        exact = subsampling.expected_top(scores, row["n"])
        assert row["expected"] == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize(
    ("law", "shape"),
    [
        (scipy.stats.expon(), 0.0),
        (scipy.stats.genpareto(-0.3), -0.3),
        (scipy.stats.genpareto(0.2), 0.2),
    ],
)
def test_tail_intervals_cover_the_truth(law, shape):
    N, rng, hits = 1000, np.random.default_rng(11), np.zeros(4)
    ns = [N, 10 * N]
    truth = [best_of(law, n) for n in ns]
    for i in range(80):
        found = tails.fit_tail(law.rvs(N, random_state=rng), draws=100, seed=i)
        # Above u a generalised Pareto law has the scale σ + ξ·u.
        values = [shape, 1 + shape * found.threshold, *truth]
        intervals = [found.shape_interval, found.scale_interval] + [
            row["interval"] for row in tails.expected_best(found, ns)
        ]
        hits += [low <= v <= high for v, (low, high) in zip(values, intervals, strict=True)]
    # Of the extrapolation about .92, with a standard error of .03.
    assert ((hits / 80 > 0.83) & (hits / 80 <= 1)).all(), hits


def test_heavy_tails_have_no_mean():
    tail = tails.fit_tail(scipy.stats.genpareto(1.8).rvs(2000, random_state=12), draws=50)
    (row,) = tails.expected_best(tail, [5000])
    assert row["expected"] == math.inf
    assert row["interval"][1] == math.inf
    assert tail.endpoint == math.inf


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: tails.fit_tail(np.arange(999.0), draws=0), "draws=0"),
        (lambda: tails.fit_tail(np.arange(100.0)), "10 exceedances"),
        (lambda: tails.fit_tail(np.full(1000, np.nan)), "0 did not fail"),
        (lambda: tails.fit_tail(np.ones(1000)), "0 scores exceed 1, 0 of them"),
        (lambda: tails.fit_tail(np.arange(1000) // 100 * 1.0, share=0.35), "3 of them different"),
        (lambda: tails.fit_tail(np.ones(9), share=1.0), "share=1.0"),
        (lambda: tails.fit_tail(np.ones(9), np.ones(8, bool)), "failed"),
        (lambda: tails.fit_tail(np.arange(999.0), confidence=0), "confidence=0"),
        (
            lambda: tails.expected_best(tails.fit_tail(np.arange(999.0), draws=9), [10]),
            "n=10 experts have 0.991",
        ),
        (lambda: tails.fit_generalised_pareto(np.array([1.0])), "at least 2"),
        (lambda: tails.fit_generalised_pareto(np.array([1.0, -1.0])), "at least 2"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
