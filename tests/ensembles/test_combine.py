"""One protocol over every combine rule, then votes and their weights."""

import collections
import math
import statistics

import jax
import numpy as np
import pytest
from elementwise import PARAMS, apply

import thicket_jax as tj
from thicket_jax.ensembles.combine import COMBINES, combine_rule, weighted_vote, with_weights
from thicket_jax.errors import ArgumentError

KEY = jax.random.key(3)
every_rule = pytest.mark.parametrize("name", COMBINES)


def predictions(name, K, B=9, seed=0):
    """Predictions [K, B, ...] of the kind that a rule takes, with ties for the votes."""
    rng = np.random.default_rng(seed)
    if name == "majority_vote":
        return rng.integers(0, 4, (K, B)).astype(np.int32)
    if name == "mean_probs":
        return rng.normal(0, 3, (K, B, 4)).astype(np.float32)
    return rng.normal(size=(K, B, 2)).astype(np.float32)


def slow_vote(column):
    """The most common of one item's answers, best expert first."""
    counts = collections.Counter(column)
    most = max(counts.values())
    return next(answer for answer in column if counts[answer] == most)


def slow_probs(rows):
    """The mean softmax of one item's logits, best expert first."""
    shares = []
    for row in rows:
        powers = [math.exp(x - max(row)) for x in row]
        shares.append([x / sum(powers) for x in powers])
    return [statistics.fmean(column) for column in zip(*shares, strict=True)]


def slow(name, given):
    """Every rule in plain Python, one item at a time."""
    items = np.moveaxis(given, 0, 1).tolist()
    if name == "majority_vote":
        return np.asarray([slow_vote(column) for column in items])
    if name == "mean_probs":
        return np.asarray([slow_probs(rows) for rows in items])
    pick = statistics.fmean if name == "mean" else statistics.median
    return np.asarray([[pick(column) for column in zip(*rows, strict=True)] for rows in items])


# The protocol.


@every_rule
@pytest.mark.parametrize("K", [1, 2, 5])
def test_a_rule_agrees_with_plain_python(name, K):
    given = predictions(name, K)
    found = np.asarray(COMBINES[name](given))
    np.testing.assert_allclose(found, slow(name, given), atol=1e-6)
    assert found.dtype == (np.int32 if name == "majority_vote" else np.float32)


@every_rule
def test_one_expert_decides_alone(name):
    given = predictions(name, 1)
    expected = given[0]
    if name == "mean_probs":
        expected = np.asarray(jax.nn.softmax(expected, -1))
    np.testing.assert_array_equal(COMBINES[name](given), expected)


@every_rule
def test_items_do_not_touch_each_other(name):
    given = predictions(name, 5)
    order = np.random.default_rng(1).permutation(given.shape[1])
    found = np.asarray(COMBINES[name](given))
    np.testing.assert_array_equal(COMBINES[name](given[:, order]), found[order])


@every_rule
def test_a_rule_can_be_compiled(name):
    given = predictions(name, 5)
    np.testing.assert_allclose(jax.jit(COMBINES[name])(given), COMBINES[name](given), rtol=1e-6)


@every_rule
def test_agreement_is_kept(name):
    """K copies of one expert answer what that expert answers alone."""
    alone = predictions(name, 1)
    copies = np.repeat(alone, 6, 0)
    np.testing.assert_allclose(COMBINES[name](copies), COMBINES[name](alone), rtol=1e-6)


@pytest.mark.parametrize("name", ["mean", "median", "mean_probs"])
def test_ranks_do_not_matter_to_averages(name):
    given = predictions(name, 6)
    np.testing.assert_allclose(COMBINES[name](given[::-1]), COMBINES[name](given), rtol=1e-5)


def test_rules_are_found_by_name():
    assert {name: combine_rule(name) for name in COMBINES} == COMBINES
    assert combine_rule("weighted_vote") is weighted_vote
    with pytest.raises(ArgumentError) as caught:
        combine_rule("plurality")
    assert str(caught.value) == (
        "combine='plurality' is unknown; choose one of: majority_vote, mean, median, mean_probs, "
        "weighted_vote"
    )


# Votes.


@pytest.mark.parametrize(
    ("column", "winner"),
    [
        ([7, 2, 2, 7], 7),
        ([2, 7, 7, 2], 2),
        ([5, 1, 1], 1),
        ([3, 1, 2], 3),
        ([9, 1, 1, 4, 4], 1),
        ([-1, 0, 0, -1], 0),
        ([-1, -1, -2, 5], 5),
        ([-1, 4, 6], 4),
        ([-2, -2, -1], -1),
    ],
)
def test_ties_go_to_the_better_ranked_expert(column, winner):
    assert tj.majority_vote(np.asarray(column, np.int32)[:, None]).tolist() == [winner]


def test_class_scores_vote_for_their_largest():
    scores = predictions("mean_probs", 6, B=30)
    np.testing.assert_array_equal(
        tj.majority_vote(scores), slow("majority_vote", scores.argmax(-1))
    )


@pytest.mark.parametrize(
    ("column", "weights", "winner"),
    [
        ([3, 5, 5], [0.9, 0.3, 0.4], 3),
        ([3, 5, 5], [0.6, 0.3, 0.4], 5),
        ([3, 5, 5], [0.3, 0.1, 0.2], 3),  # a tie, though 0.1 + 0.2 is more than 0.3 in floats
        ([5, 3, 5], [0.2, 0.3, 0.1], 5),
        ([3, 5, 5], [-1, -2, 0], 5),  # nothing is left: equal weights
        ([3, 5, 5], [0.1, -9, math.nan], 3),
        ([-1, -1, 4], [9, 9, 0.1], 4),
        ([-1, 4, -1], [9, 0, 9], 4),  # who weighs nothing is still better than nobody
        ([-1, -3], [1, 1], -1),
    ],
)
def test_weighted_votes_by_hand(column, weights, winner):
    votes = np.asarray(column, np.int32)[:, None]
    assert weighted_vote(votes, weights).tolist() == [winner]
    assert jax.jit(weighted_vote)(votes, np.float32(weights)).tolist() == [winner]
    assert with_weights(weighted_vote, weights)(votes).tolist() == [winner]


def test_weights_are_for_rules_that_take_them():
    votes = predictions("majority_vote", 5)
    assert with_weights(tj.majority_vote, [1, 2, 3]) is tj.majority_vote
    np.testing.assert_array_equal(weighted_vote(votes, [2.0] * 5), tj.majority_vote(votes))
    scores = predictions("mean_probs", 3, B=30)
    np.testing.assert_array_equal(weighted_vote(scores, [0, 7, 0]), scores[1].argmax(-1))
    with pytest.raises(ArgumentError, match=r"weights \[2\] do not fit predictions of 5 experts"):
        weighted_vote(votes, [1, 2])
    with pytest.raises(ArgumentError, match="weighted_vote got float32.* integer labels"):
        weighted_vote(votes.astype(np.float32), [1] * 5)
    with pytest.raises(ArgumentError, match="combine=weighted_vote needs weights; pass lambda"):
        tj.ensemble(apply, PARAMS, tj.population(KEY, 2, 0.1), combine=weighted_vote)


@pytest.mark.parametrize(
    ("rule", "given", "found"),
    [
        (tj.majority_vote, np.ones((3, 5), np.float32), "float32[3, 5]"),
        (tj.majority_vote, np.ones((3,), np.int32), "int32[3]"),
        (tj.majority_vote, np.ones((3, 5, 2, 2), np.float32), "float32[3, 5, 2, 2]"),
        (tj.mean_probs, np.ones((3, 5), np.float32), "float32[3, 5]"),
        (tj.mean_probs, np.ones((3, 5, 2), np.int32), "int32[3, 5, 2]"),
    ],
    ids=["numbers", "vector", "images", "no-classes", "labels"],
)
def test_wrong_predictions_are_named_with_another_rule(rule, given, found):
    with pytest.raises(ArgumentError) as caught:
        rule(given)
    text = str(caught.value)
    assert text.startswith(f"{rule.__name__} got {found}; it takes ")
    assert "use m" in text
    assert "\n" not in text


NO_PREDICTIONS = [
    "text", None, 3, [], {"a": 1}, [[1, 2], [3]], np.array([["a"]]), np.array([[None]]),
    np.ones((2, 3), np.complex64), np.ones((2, 3, 4), np.complex64), np.ones((0, 3)),
]  # fmt: skip


@pytest.mark.parametrize("name", [*COMBINES, "weighted_vote"])
def test_what_no_rule_can_take_is_one_line(name):
    rule = with_weights(combine_rule(name), [0.5] * 2)
    for wrong in NO_PREDICTIONS:
        with pytest.raises(ArgumentError, match=f"^{name} got .*; use m") as caught:
            rule(wrong)
        assert "\n" not in str(caught.value)
    for wrong in ("text", None, {"a": 1}, [1, "a"], [1, 1j], [1], [[1, 2]]):
        with pytest.raises(ArgumentError, match="weights"):
            weighted_vote(np.ones((2, 3), np.int32), wrong)


@pytest.mark.parametrize("name", [*COMBINES, "weighted_vote"])
def test_an_expert_with_a_nan_has_no_part_in_an_item_s_answer(name):
    """Of every item the answer is that of the experts which are whole there, in any place."""
    rule, rng = with_weights(combine_rule(name), [0.5] * 5), np.random.default_rng(1)
    for _ in range(12):
        found = rng.normal(size=(5, 6, 3)).astype(np.float32)
        broken = rng.random((5, 6)) < 0.4
        broken[:, 0] = True
        found[broken, rng.integers(0, 3)] = np.nan
        joined = np.asarray(rule(found))
        for b in range(6):
            there = found[~broken[:, b], b][:, None]
            if len(there) == 0:
                assert (joined[b] == -1) if joined.ndim == 1 else np.isnan(joined[b]).all()
                continue
            if joined.ndim == 1:
                assert joined[b] == slow_vote(there[:, 0].argmax(-1).tolist())
                continue
            np.testing.assert_allclose(joined[b], slow(name, there)[0], rtol=1e-5, atol=1e-6)


def test_nan_never_wins_a_tie():
    """The argmax of NaN is class 0: it neither ties nor wins, though the best expert has it."""
    nan = [np.nan, np.nan]
    votes = np.float32([[nan, nan], [[0, 1], nan], [nan, nan]])
    assert tj.majority_vote(votes).tolist() == [1, -1]
    assert weighted_vote(votes, [9, 1, 9]).tolist() == [1, -1]
