"""Ranks, correlations, resamples, discordance, components and clusters."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from logged_runs import logged_run

from thicket_jax.analysis import (
    correlations,
    density,
    discordance,
    reliability,
    resampling,
    specialists,
)
from thicket_jax.errors import ArgumentError


def tied(n, M, seed, levels=5):
    return np.random.default_rng(seed).integers(0, levels, (n, M)).astype(float)


# --- resampling


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


# --- ranks and correlations


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


# --- discordance


def test_percentiles_by_hand():
    scores = np.array([[1.0, 5.0], [3.0, np.nan], [3.0, 7.0], [np.nan, 6.0], [2.0, -np.inf]])
    failed = np.zeros((5, 2), bool)
    failed[3, 0] = True  # failed on task 0: the worst; expert 1 was never scored on task 1
    percentiles, experts = discordance.percentile_matrix(scores, failed)
    assert experts.tolist() == [0, 2, 3, 4]
    assert (percentiles * 8).tolist() == [[3, 3], [7, 7], [1, 5], [5, 1]]
    both, _ = discordance.percentile_matrix(scores[[0, 2]], np.array([True, False]))
    assert both.tolist() == [[0.25, 0.25], [0.75, 0.75]]
    empty, experts = discordance.percentile_matrix(np.full((3, 2), np.nan))
    assert empty.shape == (0, 2)
    assert experts.size == 0


def test_discordance_by_hand():
    # Orders 123, 123, 321: correlations 1, −1, −1, so D = 1 + 1/3; at most M/(M − 1) = 3/2.
    up = np.array([1.0, 2.0, 3.0])
    found = discordance.discordance(np.stack([up, 10 * up, -up], 1))
    assert found.value == pytest.approx(4 / 3)
    assert found.correlation == pytest.approx(np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]]))
    assert (found.n, found.constant) == (3, ())
    assert discordance.discordance(np.stack([up, up**3], 1)).interval == pytest.approx((0, 0))


def test_discordance_against_a_slow_version():
    scores = tied(30, 4, 4)
    pairs = list(itertools.combinations(range(4), 2))

    def slow(values):
        rho = [scipy.stats.spearmanr(values[:, a], values[:, b]).statistic for a, b in pairs]
        return 1 - np.mean(rho)

    found = discordance.discordance(scores, draws=50, seed=3)
    assert found.value == pytest.approx(slow(scores))
    counts = resampling.bootstrap_counts(30, 50, 3)
    resampled = [slow(scores[np.repeat(np.arange(30), c)]) for c in counts]
    assert found.interval == pytest.approx(resampling.percentile_interval(np.array(resampled)))


def test_discordance_does_not_depend_on_pieces(monkeypatch):
    scores = tied(20, 3, 5)
    whole = discordance.discordance(scores, draws=40)
    monkeypatch.setattr(resampling, "CELLS", 500)
    assert discordance.discordance(scores, draws=40).interval == whole.interval


@pytest.mark.parametrize(("rho", "n"), [(0.0, 50), (0.6, 50), (0.3, 150)])
def test_discordance_covers_the_truth(rho, n):
    # Normal scores that correlate by rho have ranks that correlate by 6/π·asin(rho/2).
    rng, hits, M = np.random.default_rng(7), 0, 3
    root = np.linalg.cholesky(np.full((M, M), rho) + (1 - rho) * np.eye(M))
    truth = 1 - 6 / math.pi * math.asin(rho / 2)
    for i in range(150):
        scores = rng.normal(size=(n, M)) @ root.T
        low, high = discordance.discordance(scores, draws=200, seed=i).interval
        hits += low <= truth <= high
    assert 0.88 < hits / 150 < 0.995  # .95 with a standard error of .018


def test_discordance_without_item_noise():
    # The tasks agree by .8; halves of noise make that .8 · √(.5 · .8).
    rng = np.random.default_rng(13)
    able = rng.normal(size=(4000, 2)) @ np.linalg.cholesky([[1, 0.8], [0.8, 1]]).T
    noisy = [able[:, [0]] + rng.normal(size=(4000, 10)) * math.sqrt(10),
             able[:, [1]] + rng.normal(size=(4000, 10)) * math.sqrt(2.5)]  # fmt: skip
    found = discordance.discordance(np.stack([x.mean(1) for x in noisy], 1), draws=2)
    rho = [reliability.split_half(x, ranks=True, splits=10, draws=1).value for x in noisy]
    assert rho == pytest.approx([0.5, 0.8], abs=0.03)
    assert found.value > 0.45
    assert discordance.without_noise(found.correlation, rho) == pytest.approx(0.2, abs=0.05)


def test_discordance_without_noise_where_it_is_not_defined():
    C = np.array([[1, 0.5, np.nan], [0.5, 1, np.nan], [np.nan] * 3])
    assert discordance.without_noise(C, [1, 0.25, math.nan]) == 0
    assert math.isnan(discordance.without_noise(C, [1, -0.1, 1]))
    assert math.isnan(discordance.without_noise(C[1:, 1:], [1, 1]))


def test_pooling_sigmas_makes_agreement():
    rng = np.random.default_rng(8)
    sigmas = np.repeat([0.1, 1.0], 200)
    scores = rng.normal(size=(400, 3)) - 4 * sigmas[:, None]
    rows = discordance.by_sigma(scores, sigmas, draws=100)
    assert [row["sigma"] for row in rows] == [0.1, 1.0]
    assert all(row["interval"][0] < 1 < row["interval"][1] for row in rows)
    assert discordance.discordance(scores, draws=100).value < 0.5


def test_constant_tasks_are_named_and_left_out():
    scores = tied(9, 3, 9)
    both = discordance.discordance(scores[:, [0, 2]])
    scores[:, 1] = 0.3
    found = discordance.discordance(scores)
    assert found.constant == (1,)
    assert (found.value, found.interval) == (both.value, both.interval)
    assert np.isnan(found.correlation[1]).all()


@pytest.mark.parametrize(
    "scores",
    [
        np.ones((5, 3)),  # all equal
        np.ones((5, 1)),  # one task
        np.array([[1.0, 2.0]]),  # one expert
        np.full((4, 2), np.nan),  # nobody scored
        np.full((4, 2), -np.inf),  # all failed
    ],
)
def test_discordance_that_is_not_defined(scores):
    found = discordance.discordance(scores)
    assert math.isnan(found.value)
    assert found.interval == (-math.inf, math.inf)
    rows = discordance.by_sigma(scores, np.ones(len(scores)))
    assert math.isnan(rows[0]["discordance"])


def test_records_of_the_same_experts_and_of_others():
    rng = np.random.default_rng(10)
    sigmas = np.tile([0.1, 0.2], 10)
    items = [rng.random((20, 6)) for _ in range(3)]
    items[1][4] = np.nan
    runs = [logged_run(x, sigmas, task=f"t{i}") for i, x in enumerate(items)]
    scores, failed, found = discordance.score_matrix(runs)
    assert scores.shape == failed.shape == (20, 3)
    assert failed.sum() == 1
    assert failed[4, 1]
    assert (found == np.float32(sigmas)).all()
    rows = discordance.of_records(runs, draws=20)
    assert [row["n"] for row in rows] == [10, 10]
    expected = discordance.discordance(scores[::2], failed[::2], draws=20)
    assert (rows[0]["discordance"], tuple(rows[0]["interval"])) == (
        expected.value,
        expected.interval,
    )
    for other in [
        logged_run(items[0], sigmas, task="x", key=(1, 1)),
        logged_run(items[0], sigmas * 2, task="x"),
        logged_run(items[0][:10], sigmas[:10], task="x"),
    ]:
        with pytest.raises(ArgumentError, match="run 1 .x. has another"):
            discordance.of_records([runs[0], other])


# --- components and clusters


def test_components_by_hand():
    # Two tasks that agree: one direction, (1, 1)/√2, holds all.
    up = np.array([0.25, 0.5, 0.75])
    found = specialists.principal_components(np.stack([up, up], 1))
    assert found.shares == pytest.approx([1, 0])
    assert found.directions[0] == pytest.approx([math.sqrt(0.5)] * 2)
    assert found.coordinates[:, 0] == pytest.approx([-math.sqrt(3), 0, math.sqrt(3)])


def test_components_are_those_of_the_correlation_matrix():
    percentiles, _ = discordance.percentile_matrix(tied(60, 4, 11))
    found = specialists.principal_components(percentiles)
    sizes = np.linalg.eigvalsh(np.corrcoef(percentiles.T))[::-1]
    assert found.shares == pytest.approx(sizes / 4)
    scaled = (percentiles - 0.5) / percentiles.std(0)
    assert found.coordinates @ found.directions == pytest.approx(scaled)
    assert found.directions @ found.directions.T == pytest.approx(np.eye(4), abs=1e-9)
    assert (np.abs(found.directions).max(1) == found.directions.max(1)).all()
    few = specialists.principal_components(percentiles, 2)
    assert few.coordinates.tolist() == found.coordinates[:, :2].tolist()


def test_components_of_constant_tasks_and_of_one_expert():
    percentiles = np.stack([np.array([0.1, 0.5, 0.9]), np.full(3, 0.5)], 1)
    found = specialists.principal_components(percentiles)
    assert found.constant == (1,)
    assert found.directions[0] == pytest.approx([1, 0])
    one = specialists.principal_components(np.array([[0.5, 0.5]]))
    assert one.shares.tolist() == [0]
    assert one.coordinates.tolist() == [[0]]


def test_clusters_find_the_groups_that_are_there():
    rng = np.random.default_rng(12)
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    centres = np.array([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    points = centres[truth] + 0.03 * rng.normal(size=(60, 3))
    found = specialists.clusters(points)
    assert (found.labels == truth).all()  # the largest first
    assert found.sizes.tolist() == [30, 20, 10]
    assert found.centres == pytest.approx(centres, abs=0.03)
    assert found.silhouette > 0.8
    again = specialists.clusters(points, 3)
    assert (again.labels == found.labels).all()
    # The silhouette by its definition.
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    values = []
    for i in range(60):
        means = [distances[i, truth == c].sum() / (truth == c).sum() for c in range(3)]
        a = means[truth[i]] * (truth == truth[i]).sum() / ((truth == truth[i]).sum() - 1)
        b = min(m for c, m in enumerate(means) if c != truth[i])
        values.append((b - a) / max(a, b))
    assert found.silhouette == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: resampling.bootstrap_counts(0, 5), "n=0"),
        (lambda: resampling.percentile_interval(np.ones(3), 1), "confidence=1"),
        (lambda: resampling.bootstrap_mean(np.ones((2, 2))), "values .2, 2."),
        (lambda: correlations.average_ranks(np.array([np.nan])), "NaN"),
        (lambda: correlations.spearman(np.ones(2), np.ones(3)), "same n"),
        (lambda: correlations.spearman(np.ones(2), np.ones(2), 0.0), "confidence=0.0"),
        (lambda: discordance.discordance(np.ones(3)), r"\[N, M\]"),
        (lambda: discordance.discordance(np.ones((3, 2)), np.zeros((2, 2))), "failed"),
        (lambda: discordance.discordance(np.ones((3, 2)), confidence=5), "confidence=5"),
        (lambda: discordance.by_sigma(np.ones((3, 2)), np.ones(2)), "sigmas"),
        (lambda: discordance.without_noise(np.eye(2), [1]), "reliabilities .1. .M."),
        (lambda: discordance.score_matrix([]), "records is empty"),
        (lambda: specialists.principal_components(np.ones((3, 2)), 3), "count=3"),
        (lambda: specialists.principal_components(np.full((3, 2), np.nan)), "finite"),
        (lambda: specialists.clusters(np.ones((9, 2))), "at least 3 different"),
        (lambda: specialists.clusters(np.eye(4), 4), "count=4"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_density_and_discordance_of_one_expert():
    assert density.density_curve(np.ones(1), np.zeros(1, bool), np.ones(1), 1.0, [0])[0]["n"] == 1
    assert discordance.discordance(np.ones((1, 3))).constant == (0, 1, 2)
