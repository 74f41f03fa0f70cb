"""Train against test, and selected against random."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from kept_runs import kept_run
from logged_runs import logged_run

from thicket_jax.analysis import correlations, transfer
from thicket_jax.errors import ArgumentError
from thicket_jax.scoring import metrics

ACCURACY = metrics.METRICS["accuracy"].per_item


def test_control_by_hand():
    # One sigma, the best 2 of 4: of the 6 pairs only their own reaches 3.5.
    values, selected = np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])
    found = transfer.stratified_control(values, selected, np.ones(4), draws=30000)
    assert (found.selected, found.k, found.n) == (3.5, 2, 4)
    assert found.random == pytest.approx(2.5, abs=0.02)
    assert found.difference == found.selected - found.random
    assert found.others == 1.5
    assert found.p_value == pytest.approx(1 / 6, abs=0.01)
    assert found.null == (1.5, 3.5)


def test_control_against_every_selection():
    rng = np.random.default_rng(0)
    values, strata = rng.normal(size=9), np.repeat([0.1, 0.2], [5, 4])
    selected = np.zeros(9, bool)
    selected[[0, 3, 6]] = True
    all_of = [
        values[list(a) + list(b)].mean()
        for a in itertools.combinations(range(5), 2)
        for b in itertools.combinations(range(5, 9), 1)
    ]
    found = transfer.stratified_control(values, selected, strata, draws=20000)
    # Two of the selected are of the first sigma, one of the second.
    others = (2 * values[[1, 2, 4]].mean() + values[[5, 7, 8]].mean()) / 3
    assert found.others == pytest.approx(others)
    truth = np.mean(np.array(all_of) >= values[selected].mean() - 1e-12)
    assert found.p_value == pytest.approx(truth, abs=0.015)
    assert found.random == pytest.approx(np.mean(all_of), abs=0.02)


def test_control_is_stratified():
    # Sigma .1 is better than .2 altogether; taking .1 is no merit of the selected.
    rng = np.random.default_rng(1)
    strata = np.repeat([0.1, 0.2], 50)
    values = rng.normal(size=100) + 10 * (strata == 0.1)
    selected = np.zeros(100, bool)
    selected[:10] = True
    same = transfer.stratified_control(values, selected, strata)
    pooled = transfer.stratified_control(values, selected, np.ones(100))
    assert 0.02 < same.p_value < 0.98
    assert pooled.p_value == 1 / 1001


def test_control_never_says_0_and_ties_count():
    values = np.concatenate([np.full(5, 9.0), np.zeros(95)])
    selected = np.arange(100) < 5
    assert transfer.stratified_control(values, selected, np.ones(100), draws=99).p_value == 0.01
    same = transfer.stratified_control(np.full(100, 0.1), selected, np.ones(100))
    assert same.p_value == 1
    assert same.difference == pytest.approx(0)


def test_control_of_another_statistic():
    rng = np.random.default_rng(2)
    values, selected = rng.normal(size=12), np.arange(12) % 3 == 0
    asked = []

    def best(rows):
        asked.append(rows)
        return values[rows].max()

    found = transfer.stratified_control(values, selected, np.ones(12), statistic=best, draws=50)
    assert found.selected == values[::3].max()
    assert math.isnan(found.others)
    assert len(asked) == 51
    assert all((np.diff(rows) > 0).all() and len(rows) == 4 for rows in asked)
    usual = transfer.stratified_control(values, selected, np.ones(12), draws=50)
    given = transfer.stratified_control(
        values, selected, np.ones(12), statistic=lambda rows: values[rows].mean(), draws=50
    )
    assert given.p_value == usual.p_value
    assert given.null == pytest.approx(usual.null)


def test_control_leaves_unknown_out_and_failed_last():
    values = np.array([1.0, np.nan, 3, 4, np.nan])
    selected = np.array([True, True, False, False, False])
    found = transfer.stratified_control(values, selected, np.ones(5))
    assert (found.k, found.n, found.selected) == (1, 3, 1)
    values[0] = -np.inf
    worst = transfer.stratified_control(values, selected, np.ones(5))
    assert (worst.selected, worst.p_value) == (-math.inf, 1)
    values[[0, 2]] = values[[2, 0]]
    good = transfer.stratified_control(values, selected, np.ones(5), draws=3000)
    assert good.p_value == pytest.approx(2 / 3, abs=0.03)


def test_p_values_hold_under_the_null():
    # Selected at random within sigmas that differ: p is at most α with probability α or less.
    rng = np.random.default_rng(3)
    strata = np.repeat([0.1, 0.2, 0.3], 10)
    p = []
    for i in range(600):
        selected = np.zeros(30, bool)
        for start, count in ((0, 3), (10, 1), (20, 4)):
            selected[start + rng.permutation(10)[:count]] = True
        values = rng.normal(size=30) * strata + 10 * strata
        p.append(transfer.stratified_control(values, selected, strata, draws=99, seed=i).p_value)
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(p) <= level)
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / 600), level


def test_the_null_range_holds_random_selections():
    rng, hits = np.random.default_rng(4), 0
    for i in range(300):
        values = rng.normal(size=40)
        found = transfer.stratified_control(
            values, np.arange(40) < 8, np.ones(40), draws=200, seed=i
        )
        hits += found.null[0] <= found.selected <= found.null[1]
    assert 0.91 < hits / 300 < 0.985


def test_train_test_correlation_of_a_record():
    run = kept_run()
    right = (run.answers == run.targets).mean(1)
    expected = correlations.spearman(run.kept_scores, right)
    assert transfer.train_test_correlation(run) == expected
    # Squared errors: higher is worse.
    targets = np.zeros(4)
    errors = np.arange(6.0)[:, None] * np.ones(4)
    sorted_run = kept_run(metric="mse", targets=targets, answers=errors)
    assert transfer.train_test_correlation(sorted_run)[0] == pytest.approx(1)
    with pytest.raises(ArgumentError, match="no graded test answers"):
        transfer.train_test_correlation(kept_run(targets=None))


def test_held_out_correlation():
    rng = np.random.default_rng(6)
    items = rng.normal(size=(2000, 1)) + 3 * rng.normal(size=(2000, 19))
    # Halves of 9 items: reliability 9/(9 + 9) = .5; ranks 6/π·asin(.25).
    r, (low, high) = transfer.held_out_correlation(items)
    assert low < 6 / math.pi * math.asin(0.25) < high
    items[0, 0] = np.nan
    failed = np.arange(2000) < 1000
    assert (
        transfer.held_out_correlation(items, failed)[0]
        == (transfer.held_out_correlation(items[1000:])[0])
    )
    assert math.isnan(transfer.held_out_correlation(items[:, :1])[0])
    assert -1 <= r <= 1


def test_held_out_correlation_covers_the_truth():
    # Halves of 8 items have the reliability 8/(8 + 8) = .5; ranks 6/π·asin(.25).
    rng, hits, truth = np.random.default_rng(10), 0, 6 / math.pi * math.asin(0.25)
    for i in range(300):
        items = rng.normal(size=(60, 1)) + math.sqrt(8) * rng.normal(size=(60, 16))
        low, high = transfer.held_out_correlation(items, seed=i)[1]
        hits += low <= truth <= high
    assert 0.91 < hits / 300 < 0.985


def test_control_of_a_record():
    run = kept_run()
    found = transfer.control_of_record(run, draws=2000)
    right = (run.answers == run.targets).mean()
    others = (run.random_answers == run.targets).mean()
    assert (found.k, found.n) == (6, 12)
    assert found.selected == pytest.approx(right)
    assert found.p_value < 0.02
    # Permuting within sigmas, the mean over selections mixes both halves evenly.
    assert found.random == pytest.approx((right + others) / 2, abs=0.01)
    with pytest.raises(ArgumentError, match="no graded test answers"):
        transfer.control_of_record(kept_run(random_answers=None))


def test_the_random_control_of_a_run_of_arrays_has_its_own_sigmas():
    # Six kept; the random ones are the first that were neither kept nor failed. Their results
    # are their sigmas, so that nobody is better than others of the same sigma.
    run = kept_run(strings=None, targets=np.zeros(4), metric="mse")
    order = np.argsort(run.ranks)
    kept, others = order[:6], [i for i in range(30) if run.ranks[i] >= 6 and i != 3][:8]
    assert run.failed.nonzero()[0].tolist() == [3]
    answers = np.sqrt(run.sigmas)[:, None] * np.ones(4)
    run = dataclasses.replace(run, answers=answers[kept], random_answers=answers[others])
    found = transfer.control_of_record(run)
    assert (found.k, found.n, found.p_value) == (6, 14, 1)
    assert found.others == pytest.approx(found.selected)


def test_control_of_errors_with_an_overflow():
    targets = np.zeros(4)
    broken = np.ones((6, 4))
    broken[2] = np.inf
    run = kept_run(
        metric="mse", targets=targets, answers=0.1 * np.ones((6, 4)), random_answers=broken
    )
    found = transfer.control_of_record(run)
    assert found.selected == pytest.approx(-0.01)
    assert found.p_value < 0.05


def test_held_out_control_of_a_record():
    rng = np.random.default_rng(7)
    sigmas = np.tile([0.1, 0.2], 50)
    good = logged_run(rng.normal(size=(100, 1)) + rng.normal(size=(100, 20)), sigmas)
    found = transfer.held_out_control(good, 10)
    assert (found["k"], found["n"], found["p_value"]) == (10, 100, 1 / 1001)
    assert found["difference"] > 1
    p = [
        transfer.held_out_control(
            logged_run(rng.normal(size=(60, 10)), np.ones(60)), 5, draws=99, seed=i
        )["p_value"]
        for i in range(40)
    ]
    assert 0.3 < np.mean(p) < 0.7  # nothing but noise: uniform


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (
            lambda: transfer.stratified_control(np.ones(2), np.ones(3, bool), np.ones(2)),
            "must all be",
        ),
        (
            lambda: transfer.stratified_control(np.ones(2), np.zeros(2, bool), np.ones(2)),
            "nobody with a result is selected",
        ),
        (
            lambda: transfer.stratified_control(
                np.ones(4), np.array([True, True, False, False]), np.array([1, 1, 2, 2])
            ),
            "no sigma has both",
        ),
        (
            lambda: transfer.stratified_control(
                np.ones(2), np.array([True, False]), np.ones(2), draws=0
            ),
            "draws=0",
        ),
        (
            lambda: transfer.stratified_control(
                np.ones(2), np.array([True, False]), np.ones(2), statistic=lambda _: math.nan
            ),
            "is NaN",
        ),
        (lambda: transfer.held_out_control(logged_run(np.ones((3, 4)), np.ones(3)), 4), "k=4 of 3"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
