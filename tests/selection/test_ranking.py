"""Selection: the order of experts, ties, failures, and what cannot be selected."""

import functools

import jax
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.selection.ranking import ranking

KEY = jax.random.key(0)
NAN, INF = float("nan"), float("inf")


def scores(values):
    """Scores as `score` makes them: what is not finite has failed and is −inf."""
    values = np.asarray(values, np.float32)
    failed = ~np.isfinite(values)
    return tj.Scores(np.where(failed, np.float32(-np.inf), values), failed)


def top_ids(values, k, population=None):
    population = tj.population(KEY, len(values), 0.1) if population is None else population
    return np.asarray(tj.top_k(population, scores(values), k).ids).tolist()


@pytest.mark.parametrize(
    ("values", "k", "expected"),
    [
        ([1.0, 3.0, 2.0], 3, [1, 2, 0]),
        ([1.0, 1.0, 1.0, 1.0], 3, [0, 1, 2]),
        ([0.0, 2.0, 1.0, 2.0, 2.0], 4, [1, 3, 4, 2]),
        ([0.0, -0.0, 0.0], 3, [0, 1, 2]),
        ([NAN, -5.0, INF, -7.0, -INF], 2, [1, 3]),
        ([-3e38, NAN, 3e38], 2, [2, 0]),
        ([5.0], 1, [0]),
    ],
    ids=str,
)
def test_the_best_first_ties_to_the_lower_id_failures_never(values, k, expected):
    assert top_ids(values, k) == expected


def test_failed_experts_rank_last_in_the_order_of_their_ids():
    values = [NAN, 1.0, INF, -INF, -9.0, NAN]
    assert ranking(scores(values)).tolist() == [1, 4, 0, 2, 3, 5]


def test_a_failure_is_the_flag_whatever_the_value_says():
    given = tj.Scores(np.asarray([9, 1, 5], np.float32), np.asarray([True, False, False]))
    assert ranking(given).tolist() == [2, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_sort_agrees_on_many_ties(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, 200).astype(np.float32) / 4
    values[rng.random(200) < 0.2] = rng.choice([NAN, INF, -INF])
    population = tj.population(KEY, 200, 0.1, antithetic=True)

    def before(one, other):
        """Compares two experts by the law, one clause at a time."""
        a, b = values[one], values[other]
        if np.isfinite(a) != np.isfinite(b):
            return -1 if np.isfinite(a) else 1
        if np.isfinite(a) and a != b:
            return -1 if a > b else 1
        if one // 2 != other // 2:
            return -1 if one // 2 < other // 2 else 1
        return -1 if one < other else 1

    expected = sorted(range(200), key=functools.cmp_to_key(before))
    assert ranking(scores(values)).tolist() == expected
    alive = int(np.isfinite(values).sum())
    chosen = tj.top_k(population, scores(values), alive)
    np.testing.assert_array_equal(chosen.ids, np.asarray(population.ids)[expected[:alive]])
    np.testing.assert_array_equal(chosen.signs, np.asarray(population.signs)[expected[:alive]])


def test_a_shuffled_population_selects_the_same_experts():
    """Ties go to the lower id, not to whoever comes first in the array."""
    rng = np.random.default_rng(0)
    population = tj.population(KEY, 40, 0.1, antithetic=True)
    values = rng.integers(0, 4, 40).astype(np.float32)
    expected = tj.top_k(population, scores(values), 12)
    order = rng.permutation(40)
    found = tj.top_k(population[order], scores(values[order]), 12)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.signs, expected.signs)


def test_the_selected_are_a_population_with_the_same_key_and_law():
    population = tj.population(KEY, 6, (1, 2, 3), noise=tj.rademacher())
    chosen = tj.top_k(population, scores([0, 5, 1, 4, 3, 2]), 3)
    assert isinstance(chosen, tj.Population)
    assert np.asarray(chosen.ids).tolist() == [1, 3, 4]
    assert np.asarray(chosen.sigmas).tolist() == [2, 1, 2]
    assert chosen.noise == population.noise
    assert jax.random.key_data(chosen.key).tolist() == jax.random.key_data(KEY).tolist()


@pytest.mark.parametrize(
    ("values", "k", "error", "says"),
    [
        ([1, 2, 3], 0, ArgumentError, "k=0 must be a whole number of at least 1"),
        ([1, 2, 3], -1, ArgumentError, "k=-1 must be a whole number"),
        ([1, 2, 3], 1.5, ArgumentError, "k=1.5 must be a whole number"),
        ([1, 2, 3], "2", ArgumentError, "k='2' must be a whole number"),
        ([1, 2, 3], 4, ArgumentError, "k=4 is larger than the population of 3; lower k or raise"),
        ([1, NAN, INF], 2, ArgumentError, "k=2 is larger than the 1 experts that did not fail"),
        ([NAN, INF, -INF], 1, ScoreError, "all 3 experts failed"),
        ([NAN, NAN], 1, ScoreError, "lower sigma"),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_one_line_that_says_why(values, k, error, says):
    with pytest.raises(error) as caught:
        top_ids(values, k)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_of_another_population_are_refused():
    with pytest.raises(ArgumentError, match="scores of 3 experts do not belong to .* of 5"):
        tj.top_k(tj.population(KEY, 5, 0.1), scores([1, 2, 3]), 1)
