"""Ensembles over K: by hand, against a slow version, and by simulation."""

import math

import numpy as np
import pytest
from kept_runs import kept_run
from logged_runs import logged_run

from thicket_jax.analysis import intervals, sweeps
from thicket_jax.ensembles import combine as combine_rules
from thicket_jax.errors import ArgumentError
from thicket_jax.scoring import metrics

ACCURACY = metrics.METRICS["accuracy"].per_item


def test_sweep_by_hand():
    # The answers of tests/reports/test_results.py: votes of 1 are right in 2 items, of 3 in all 4.
    targets = np.array([0, 1, 2, 2])
    answers = np.array([[0, 1, 0, 0], [0, 1, 2, 2], [1, 0, 2, 2]])
    base = np.array([0, 0, 2, 0])
    rows = sweeps.sweep_k(
        answers, [1, 3], combine_rules.majority_vote, targets, ACCURACY, base_answers=base
    )
    assert [row["k"] for row in rows] == [1, 3]
    assert [row["test"] for row in rows] == [0.5, 1.0]
    assert [row["minus_base"] for row in rows] == [0, 0.5]
    assert [row["minus_best_single"] for row in rows] == [0, 0.5]
    assert rows[0]["minus_best_single_interval"] == [0, 0]
    right = np.array([1, 0, 1, 0])
    assert rows[1]["minus_base_interval"] == list(intervals.paired_difference(np.ones(4), right)[1])
    assert rows[0]["stderr"] == pytest.approx(math.sqrt(1 / 3) / 2)


def test_sweep_against_a_slow_version():
    rng = np.random.default_rng(8)
    answers, targets = rng.normal(size=(7, 30, 2)), rng.normal(size=(30, 2))
    base = rng.normal(size=(30, 2))
    rows = sweeps.sweep_k(
        answers,
        [2, 7],
        lambda x: np.median(x, 0),
        targets,
        metrics.METRICS["mse"].per_item,
        base_answers=base,
        confidence=0.8,
    )
    for row in rows:
        joined = [np.median(answers[: row["k"], b], 0) for b in range(30)]
        errors = np.array([np.mean((joined[b] - targets[b]) ** 2) for b in range(30)])
        baseline = np.array([np.mean((base[b] - targets[b]) ** 2) for b in range(30)])
        assert row["test"] == pytest.approx(errors.mean())
        delta, interval = intervals.paired_difference(errors, baseline, 0.8)
        assert row["minus_base"] == pytest.approx(delta)
        assert row["minus_base_interval"] == pytest.approx(list(interval))
        first = np.mean((answers[0] - targets) ** 2, 1)
        delta, interval = intervals.paired_difference(errors, first, 0.8)
        assert row["minus_best_single"] == pytest.approx(delta)
        assert row["minus_best_single_interval"] == pytest.approx(list(interval))


def test_sweep_intervals_cover_the_truth():
    # Answers are truth + N(0, 1): the mean of K errs by 1/K in expectation, the base by 1.
    rng, hits = np.random.default_rng(9), np.zeros(4)
    per_item = metrics.METRICS["mse"].per_item
    for _ in range(300):
        answers, base = rng.normal(size=(5, 60)), rng.normal(size=60)
        rows = sweeps.sweep_k(
            answers, [2, 5], lambda x: x.mean(0), np.zeros(60), per_item, base_answers=base
        )
        for i, row in enumerate(rows):
            truth = 1 / row["k"] - 1
            hits[i] += row["minus_base_interval"][0] <= truth <= row["minus_base_interval"][1]
            low, high = row["minus_best_single_interval"]
            hits[2 + i] += low <= truth <= high
    assert ((hits / 300 > 0.89) & (hits / 300 < 0.985)).all(), hits  # squares are skewed


def test_sweep_without_base_and_of_one_item():
    (row,) = sweeps.sweep_k(
        np.array([[1]]), [1], combine_rules.majority_vote, np.array([1]), ACCURACY
    )
    assert row["test"] == 1
    assert math.isnan(row["minus_base"])
    assert row["minus_base_interval"] == [-math.inf, math.inf]
    assert row["minus_best_single_interval"] == [-math.inf, math.inf]


def test_sweep_of_a_record_weighs_by_train_scores():
    run = kept_run()
    for rule in ("majority_vote", "weighted_vote"):
        rows = sweeps.of_record(run, [1, 3, 6], rule)
        combine = combine_rules.with_weights(combine_rules.RULES[rule], run.kept_scores[:3])
        right = np.asarray(combine(run.answers[:3])) == run.targets
        assert rows[1]["test"] == right.mean()
        assert rows[0]["minus_best_single"] == 0
    # Of the best three the first is outvoted, .5 against .4 + .3; by the last three's it is not.
    scores = np.array([0.5, 0.4, 0.3, 0.1, 0.05])
    answers = np.array([[0, 0], [1, 1], [1, 1], [0, 0], [0, 0]])
    small = logged_run(
        scores[:, None] * np.ones(2), np.ones(5), answers=answers, targets=np.ones(2, int)
    )
    rows = sweeps.of_record(small, [1, 3, 5], "weighted_vote")
    assert [row["test"] for row in rows] == [0, 1, 1]
    with pytest.raises(ArgumentError, match="no graded test answers"):
        sweeps.of_record(kept_run(answers=None), [1], "majority_vote")


def bad_sweep(**changes):
    given = {
        "answers": np.zeros((2, 3), int),
        "ks": [1],
        "combine": lambda x: x[0],
        "targets": np.zeros(3, int),
        "per_item": ACCURACY,
    }
    return sweeps.sweep_k(**(given | changes))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: bad_sweep(ks=[3]), "k=3 of 2"),
        (lambda: bad_sweep(ks=[0]), "k=0 of 2"),
        (lambda: bad_sweep(ks=[True]), "k=True"),
        (lambda: bad_sweep(answers=np.zeros((2, 0))), "answers .2, 0."),
        (lambda: bad_sweep(combine=lambda x: x[0, 0]), "answers .. must be .3"),
        (lambda: bad_sweep(per_item=lambda a, t: np.zeros(2)), "metric gave .2."),
        (lambda: bad_sweep(base_answers=np.zeros(2, int)), "answers .2. must be .3"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
