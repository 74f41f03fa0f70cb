"""Resamples and percentiles: by hand, against scipy, and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from thicket_jax.analysis import resampling
from thicket_jax.errors import ArgumentError


def test_bootstrap_counts_are_resamples():
    counts = resampling.bootstrap_counts(7, 3000, seed=1)
    assert counts.shape == (3000, 7)
    assert (counts.sum(1) == 7).all()
    # Each count is binomial(7, 1/7); 4 standard errors.
    assert np.abs(counts.mean(0) - 1).max() < 4 * math.sqrt(6 / 7 / 3000)
    assert counts.var(0) == pytest.approx(6 / 7, abs=0.1)
    assert (counts == resampling.bootstrap_counts(7, 3000, seed=1)).all()
    assert (counts != resampling.bootstrap_counts(7, 3000, seed=2)).any()


def test_percentiles_leave_nan_out_and_keep_infinities():
    values = np.array([np.nan, 0.0, 1.0, 2.0, 3.0, 4.0])
    assert resampling.percentile_interval(values, 0.5) == (1.0, 3.0)
    assert resampling.percentile_interval(np.array([np.nan])) == (-math.inf, math.inf)
    ends = np.concatenate([np.arange(50.0), np.full(50, np.inf)])
    assert resampling.percentile_interval(ends)[1] == math.inf


def test_bootstrap_mean_by_hand_and_against_scipy():
    # Of two items every resample has mean 0, 1 or 2, in the shares 1/4, 1/2, 1/4.
    assert resampling.bootstrap_mean(np.array([0.0, 2.0])) == (1.0, (0.0, 2.0))
    assert resampling.bootstrap_mean(np.array([5.0])) == (5.0, (-math.inf, math.inf))
    mean, interval = resampling.bootstrap_mean(np.array([1.0, np.inf]))
    assert math.isnan(mean)
    assert interval == (-math.inf, math.inf)
    values = 1e9 + np.random.default_rng(0).exponential(size=60)
    mean, (low, high) = resampling.bootstrap_mean(values, draws=4000)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=4000, rng=1, vectorized=True
    ).confidence_interval
    assert mean == values.mean()
    assert (low - mean, high - mean) == pytest.approx(
        (reference.low - mean, reference.high - mean), abs=0.03
    )


def test_bootstrap_mean_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(300):
        _, (low, high) = resampling.bootstrap_mean(rng.exponential(size=60), draws=300, seed=i)
        hits += low <= 1 <= high
    assert 0.89 < hits / 300 < 0.98  # skewed: .92 or .93


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: resampling.bootstrap_counts(0, 5), "n=0"),
        (lambda: resampling.percentile_interval(np.ones(3), 1), "confidence=1"),
        (lambda: resampling.bootstrap_mean(np.ones((2, 2))), "values .2, 2."),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
