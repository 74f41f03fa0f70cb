"""Selection from logged answers: by hand, against slow obvious versions, with a known answer."""

import itertools

import numpy as np
import pytest

from thicket_jax.ensembles import committees
from thicket_jax.errors import ArgumentError


def cloud(seed, members=7, items=12):
    """Answers float64 [M, B, 2] and targets [B, 2] that nobody meets."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(members, items, 2)), rng.normal(size=(items, 2))


def test_products_are_the_squared_error_of_every_weighted_mean():
    answers, targets = cloud(0)
    products = committees.error_products(answers, targets)
    weights = np.random.default_rng(1).dirichlet(np.ones(len(answers)))
    mean = np.tensordot(weights, answers, 1)
    assert weights @ products @ weights == pytest.approx(((mean - targets) ** 2).mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_error_is_mean_error_less_diversity(weighted):
    answers, targets = cloud(2)
    members = np.array([4, 0, 4, 6])
    weights = np.array([0.1, 0.2, 0.3, 0.4]) if weighted else np.full(4, 0.25)
    chosen = answers[members]
    mean = np.tensordot(weights, chosen, 1)
    own = ((chosen - targets) ** 2).mean((1, 2))
    spread = ((chosen - mean) ** 2).mean((1, 2))
    products = committees.error_products(answers, targets)
    found = committees.ambiguity(products, members, weights if weighted else None)
    assert found.error == pytest.approx(((mean - targets) ** 2).mean())
    assert found.mean_error == pytest.approx(weights @ own)
    assert found.diversity == pytest.approx(weights @ spread)  # not as a difference of the two
    assert found.error == pytest.approx(weights @ own - weights @ spread)


@pytest.mark.parametrize("start", [1, 3])
def test_greedy_is_the_slow_obvious_version(start):
    answers, targets = cloud(3)

    def error(members):
        return ((answers[list(members)].mean(0) - targets) ** 2).mean()

    slow = sorted(range(len(answers)), key=lambda i: error([i]))[:start]
    while len(slow) < 9:
        slow.append(min(range(len(answers)), key=lambda i: error([*slow, i])))
    products = committees.error_products(answers, targets)
    assert committees.greedy(products, 9, start=start).tolist() == slow
    assert committees.greedy(products, 5, start=start).tolist() == slow[:5]


def test_two_that_err_opposite_ways_are_found_among_better_ones_that_err_alike():
    """The best three are alike; the only pair without error is of the two worst."""
    answers = np.array([[1.0, 1.0], [1.01, 1.01], [1.02, 1.02], [1.1, -1.1], [-1.1, 1.1]])
    products = committees.error_products(answers, np.zeros(2))
    assert set(committees.complementary(products, 3, 0.0).tolist()) == {0, 1, 2}
    assert set(committees.complementary(products, 3, 2.0).tolist()) == {0, 3, 4}
    pairs = itertools.combinations(range(5), 2)
    best = min(pairs, key=lambda pair: committees.ambiguity(products, np.array(pair)).error)
    assert best == (3, 4)
    assert committees.error_correlation(products, np.array([3, 4, 4])) == pytest.approx(-1)
    assert committees.error_correlation(products, np.array([0, 1])) == pytest.approx(1)


def test_bagged_greedy_of_all_candidates_in_one_bag_is_greedy():
    products = committees.error_products(*cloud(4))
    picks = committees.bagged_greedy(products, 6, bags=1, share=1.0, start_share=0.0)
    assert sorted(picks) == sorted(committees.greedy(products, 6))
    several = committees.bagged_greedy(products, 23, bags=4, seed=5)
    counts = np.bincount(several)
    assert len(several) == 23
    assert counts[several].tolist() == sorted(counts[several], reverse=True)
    assert several.tolist() == committees.bagged_greedy(products, 23, bags=4, seed=5).tolist()


def test_greedy_votes_is_the_slow_obvious_version():
    rng = np.random.default_rng(6)
    votes, truth = rng.integers(-1, 3, (6, 15)), rng.integers(0, 3, 15)
    right = truth[:, None] == np.arange(3)

    def accuracy(members):
        total = 0.0
        for item in range(15):
            counts = [sum(votes[m, item] == c for m in members) for c in range(3)]
            good = counts[truth[item]]
            bad = max(counts[c] for c in range(3) if c != truth[item])
            total += 1.0 if good > bad else 0.5 if good == bad > 0 else 0.0
        return total / 15

    slow = []
    while len(slow) < 6:
        slow.append(max(range(6), key=lambda i: accuracy([*slow, i])))
    assert committees.greedy_votes(votes, right, 6).tolist() == slow


def test_weights_by_hand():
    products = np.diag([1.0, 2.0, 3.0])
    weights = committees.error_weights(products, np.array([0, 1, 2]), 0.5)
    raised = np.exp(-np.array([0.0, 1.0, 2.0]))  # the median error is 2, and 2 · 0.5 = 1
    assert weights == pytest.approx(raised / raised.sum())
    equal = committees.error_weights(products, np.array([0, 1]), np.inf)
    assert equal.tolist() == [0.5, 0.5]
    assert committees.one_hot(np.array([1, -1]), 2).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda G: committees.error_products(np.ones((2, 3)), np.ones(2)), "must be"),
        (lambda G: committees.error_products(np.full((2, 3), np.nan), np.ones(3)), "failed"),
        (lambda G: committees.greedy(G, 0), "size=0"),
        (lambda G: committees.greedy(G, 2, start=4), "start=4"),
        (lambda G: committees.greedy(G[:2], 2), "products"),
        (lambda G: committees.complementary(G, 4, 0.0), "size=4"),
        (lambda G: committees.complementary(G, 2, -1.0), "weight"),
        (lambda G: committees.bagged_greedy(G, 2, share=0.0), "share"),
        (lambda G: committees.error_weights(G, np.array([0]), 0.0), "temperature"),
        (lambda G: committees.greedy_votes(np.full((2, 3), 5), np.ones((3, 2)), 1), "below C"),
    ],
)
def test_bad_input_is_said_in_one_line(call, words):
    with pytest.raises(ArgumentError, match=words) as error:
        call(np.eye(3))
    assert len(str(error.value).splitlines()) == 1
