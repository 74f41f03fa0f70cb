"""Ranks and correlations: against scipy and slow versions, and by simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from tied_scores import tied

from thicket_jax.analysis import correlations, resampling
from thicket_jax.errors import ArgumentError


def test_average_ranks_match_scipy_and_a_slow_version():
    values = tied(40, 3, 0)
    values[3] = -np.inf
    ranks = correlations.average_ranks(values)
    assert (ranks == scipy.stats.rankdata(values, axis=0)).all()
    for i, m in itertools.product(range(40), range(3)):
        below, equal = (values[:, m] < values[i, m]).sum(), (values[:, m] == values[i, m]).sum()
        assert ranks[i, m] == below + (equal + 1) / 2


def test_weighted_ranks_are_the_ranks_of_the_resample():
    values, counts = tied(12, 2, 1, levels=6), resampling.bootstrap_counts(12, 5)
    ranks = correlations.weighted_ranks(values, counts)
    for r in range(5):
        drawn = np.repeat(np.arange(12), counts[r])
        expected = scipy.stats.rankdata(values[drawn], axis=0)
        assert (ranks[r][drawn] == expected).all()


def test_pearson_matrix_matches_numpy_and_names_constants():
    values = tied(30, 3, 2)
    values[:, 1] = 0.1  # a mean of 0.1s is not 0.1, so that a computed variance is not 0
    found = correlations.pearson_matrix(values)
    assert found[0, 2] == pytest.approx(np.corrcoef(values[:, 0], values[:, 2])[0, 1])
    assert found[0, 0] == pytest.approx(1)
    assert np.isnan(found[1]).all()
    counts = resampling.bootstrap_counts(30, 4)
    repeated = correlations.pearson_matrix(np.broadcast_to(values, (4, 30, 3)), counts)
    for r in range(4):
        drawn = values[np.repeat(np.arange(30), counts[r])]
        assert repeated[r, 0, 2] == pytest.approx(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1])


def test_spearman_matches_scipy_and_its_interval_the_formula():
    values = tied(25, 2, 3)
    r, (low, high) = correlations.spearman(values[:, 0], values[:, 1])
    assert r == pytest.approx(scipy.stats.spearmanr(values[:, 0], values[:, 1]).statistic)
    half = 1.959964 * math.sqrt((1 + r**2 / 2) / 22)
    assert (np.arctanh(low), np.arctanh(high)) == pytest.approx(
        (np.arctanh(r) - half, np.arctanh(r) + half), abs=1e-6
    )


def test_spearman_at_its_edges():
    up = np.arange(6.0)
    assert correlations.spearman(up, up**3)[0] == 1
    low, high = correlations.spearman(up, up**3)[1]
    assert 0 < low < 0.95
    assert high == 1
    assert correlations.spearman(up, -up)[1] == (-high, -low)
    assert correlations.spearman(up[:3], up[:3]) == (1, (-1, 1))
    for pair in [(up, np.ones(6)), (up[:1], up[:1]), (up[:0], up[:0])]:
        r, interval = correlations.spearman(*pair)
        assert math.isnan(r)
        assert interval == (-1, 1)
    holes = np.array([0, np.nan, 2, 3, 4, 5])
    assert correlations.spearman(holes, up)[0] == pytest.approx(1)
    assert correlations.spearman(np.array([-np.inf, 0, 1]), up[:3])[0] == 1


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_spearman_covers_the_truth(rho):
    rng, hits = np.random.default_rng(6), 0
    truth = 6 / math.pi * math.asin(rho / 2)
    for _ in range(500):
        x = rng.normal(size=40)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=40)
        _, (low, high) = correlations.spearman(x, y)
        hits += low <= truth <= high
    assert 0.925 < hits / 500 < 0.98


def test_spearman_covers_the_truth_of_a_slice():
    # Of the kept experts: the best fifth by x. The truth is that of a very large slice.
    rng, hits = np.random.default_rng(7), 0

    def kept(n):
        x, noise = rng.normal(size=n), rng.normal(size=n)
        best = np.argsort(-x)[: n // 5]
        return x[best], (0.7 * x + math.sqrt(1 - 0.7**2) * noise)[best]

    truth = correlations.spearman(*kept(400_000))[0]
    assert 0.3 < truth < 0.5  # far below that of everybody, .68
    for _ in range(500):
        _, (low, high) = correlations.spearman(*kept(250))
        hits += low <= truth <= high
    assert 0.925 < hits / 500 < 0.98


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: correlations.average_ranks(np.array([np.nan])), "NaN"),
        (lambda: correlations.spearman(np.ones(2), np.ones(3)), "same n"),
        (lambda: correlations.spearman(np.ones(2), np.ones(2), 0.0), "confidence=0.0"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
