"""Races: bounds that hold as often as they promise, and what a race may say."""

import numpy as np
import pytest
from classifier import KEY, OPTIONS, B, K, N, batch, correct, ids, likelihood, params

import thicket_jax as tj
from thicket_jax.errors import ScoreError
from thicket_jax.experts.population import Population
from thicket_jax.selection import bounds, rules

# Bounds.


def test_the_radius_is_the_smaller_of_the_two_bounds():
    log = np.log
    rho = (1 - 6000 / 10000) * (1 + 1 / 6000)
    bernstein = 0.01 * np.sqrt(2 * rho * log(10 / 0.05) / 6000)
    bernstein += (7 / 3 + 3 / np.sqrt(2)) * log(10 / 0.05) / 6000
    hoeffding = np.sqrt(rho * log(2 / 0.05) / 12000)
    assert bernstein < hoeffding
    found = bounds.radius(np.array([0.01, 0.5]), 1.0, 6000, 10000, 0.05)
    np.testing.assert_allclose(found, [bernstein, hoeffding])
    assert bounds.radius(np.ones(2), 1.0, 1000, 1000, 0.05).tolist() == [0, 0]
    assert bounds.serfling_factor(10, 1000) == pytest.approx(1 - 9 / 1000)


def test_a_mean_lies_below_its_radius_no_more_often_than_said():
    rng, delta = np.random.default_rng(1), 0.2
    for items, p in ((60, 0.5), (60, 0.05), (400, 0.01)):
        everyone = (rng.random((2000, items)) < p).astype(float)
        for seen in (items // 4, items // 2, 3 * items // 4):
            x = everyone[:, :seen]
            lower = x.mean(1) - bounds.radius(x.std(1), 1.0, seen, items, delta)
            assert (everyone.mean(1) < lower).mean() <= delta


def raced(outcomes, rule, k):
    """A race over a table of outcomes [N, B], by the rule alone; positions kept, and the share."""
    num, items = outcomes.shape
    alive, start, cost = np.arange(num), 0, 0
    experts = Population(KEY, np.arange(num), np.ones(num), np.ones(num), tj.gaussian())
    while start < items:
        stop = rule.stop(num, items, k, start, len(alive))
        cost += len(alive) * (stop - start)
        start = stop
        if start < items:
            seen = outcomes[alive, :start]
            alive = alive[rule.keep(seen, experts, num, items, k)]
    order = np.argsort(-outcomes[alive].mean(1), kind="stable")
    return alive[order[:k]], cost / outcomes.size


def problems(count, seed=0):
    """Random tables of outcomes 0 or 1: experts of many qualities, items of many difficulties."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        num, items = int(rng.integers(8, 40)), int(rng.integers(100, 1000))
        quality, difficulty = rng.normal(0, 2, num), rng.normal(0, 1, items)
        chance = 1 / (1 + np.exp(difficulty[None] - quality[:, None]))
        yield (rng.random((num, items)) < chance).astype(np.float32), int(rng.integers(1, 6))


def share_found(rule, count=100):
    """How often a race finds the true best K (any of tied ones), and the mean share of work."""
    found, work = [], []
    for outcomes, k in problems(count):
        kept, share = raced(outcomes, rule, k)
        means = outcomes.mean(1)
        found.append(np.allclose(np.sort(means)[::-1][:k], means[kept]))
        work.append(share)
    return np.mean(found), np.mean(work)


def test_a_bounded_race_finds_the_true_best_as_often_as_it_promises():
    found, work = share_found(rules.check_rule("race", None, 0.1, (0, 1)))
    assert found >= 0.9
    assert work < 0.85


def jackpots(count, share=0.01, value=100.0, seed=0):
    """Outcomes of ordinary experts, and of three that are best by rare large ones alone."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        outcomes = rng.random((20, 600)).astype(np.float32) + np.linspace(0.5, 1, 20)[:, None]
        outcomes[:3] = value * (rng.random((3, 600)) < share) + 0.9 * rng.random((3, 600))
        yield outcomes, 3


def test_without_bounds_a_race_misses_rare_outcomes_and_is_called_a_heuristic():
    free, bounded = (rules.check_rule("race", None, 0.05, x) for x in (None, (0, 101)))
    hits = {free: [], bounded: []}
    for outcomes, k in jackpots(20):
        best = np.sort(outcomes.mean(1))[::-1][:k]
        for rule in hits:
            kept, _ = raced(outcomes, rule, k)
            hits[rule].append(np.allclose(best, outcomes[kept].mean(1)))
    assert np.mean(hits[bounded]) >= 0.95 > np.mean(hits[free])
    for num, items, k in ((20, 600, 3), (4000, 32, 50), (2, 2, 1)):
        for stopped in (0, 1, num - k):
            seen = np.where(np.arange(num) < stopped, 1, items)
            said = free.guarantee(num, items, k, seen)
            assert ("heuristic" in said.sentence) == (stopped > 0) == (said.delta is None)
            assert "robability at least" not in said.sentence and "certain to" not in said.sentence
            said = bounded.guarantee(num, items, k, seen)
            assert "heuristic" not in said.sentence and said.delta == 0.05
            assert ("probability at least 0.95" in said.sentence) == (stopped > 0)
    for words in (tj.race.__doc__, type(said).__doc__, type(free).__doc__):
        assert "heuristic" in words or "Without bounds" in words


def test_the_simulation_would_notice_a_race_that_stops_too_early(monkeypatch):
    real = bounds.radius
    monkeypatch.setattr(bounds, "radius", lambda *x: 0.02 * real(*x))
    assert share_found(rules.check_rule("race", None, 0.1, (0, 1)))[0] < 0.9


def test_a_pair_is_bounded_by_every_leader():
    outcomes = np.repeat([[0.9], [0.8], [0.1], [0.5]], 50, 1)
    assert bounds.beaten(outcomes, 2, 100, 0.1, None).tolist() == [False, False, True, True]
    for first in (1, 2):  # that are all the same says little when they are one or two
        assert not bounds.beaten(outcomes[:, :first], 2, 100, 1e-4, None).any()
    assert not bounds.beaten(outcomes, 2, 100, 0.1, 2.0)[:2].any()
    assert not bounds.beaten(outcomes[:2], 2, 100, 0.1, None).any()


# On devices.


@pytest.fixture(scope="module")
def race(population):
    return tj.race(likelihood, params(), population, batch(), K, delta=0.2, **OPTIONS)


def test_a_race_finds_the_best_and_says_what_it_is_without_bounds(race, population, full):
    assert ids(race.experts) == ids(tj.top_k(population, full, K))
    alive = ~full.failed
    stopped = int((race.scores.seen[alive] < B).sum())
    assert race.guarantee.delta is None and race.guarantee.bounds is None
    assert race.guarantee.stopped == stopped > 0
    assert race.guarantee.sentence.startswith("A heuristic, without any guarantee")
    assert race.guarantee.comparisons == K * (N - K) * (len(range(0, B, 4)) - 1)


def test_a_race_that_can_stop_nobody_says_so(population):
    found = tj.race(correct, params(), population[:8], batch(), 3, bounds=(0, 1), **OPTIONS)
    assert found.share == 1 and found.guarantee.sentence.startswith("Nothing could be stopped")
    with pytest.raises(ScoreError, match=r"an outcome of 1 lies outside the bounds 0 to 0\.5"):
        tj.race(correct, params(), population[:8], batch(), 3, bounds=(0, 0.5), **OPTIONS)
