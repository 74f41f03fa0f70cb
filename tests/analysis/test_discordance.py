"""Discordance of tasks: by hand, against a slow version, and by simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from logged_runs import logged_run
from tied_scores import tied

from thicket_jax.analysis import density, discordance, reliability, resampling
from thicket_jax.errors import ArgumentError


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


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: discordance.discordance(np.ones(3)), r"\[N, M\]"),
        (lambda: discordance.discordance(np.ones((3, 2)), np.zeros((2, 2))), "failed"),
        (lambda: discordance.discordance(np.ones((3, 2)), confidence=5), "confidence=5"),
        (lambda: discordance.by_sigma(np.ones((3, 2)), np.ones(2)), "sigmas"),
        (lambda: discordance.without_noise(np.eye(2), [1]), "reliabilities .1. .M."),
        (lambda: discordance.score_matrix([]), "records is empty"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_density_and_discordance_of_one_expert():
    assert density.density_curve(np.ones(1), np.zeros(1, bool), np.ones(1), 1.0, [0])[0]["n"] == 1
    assert discordance.discordance(np.ones((1, 3))).constant == (0, 1, 2)
