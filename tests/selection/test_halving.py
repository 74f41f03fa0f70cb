"""Halving: budgets, the same items for all, nothing twice, who goes on."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier import KEY, OPTIONS, B, K, N, batch, correct, ids, labels, likelihood, params

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.experts.population import Population
from thicket_jax.scoring import pieces
from thicket_jax.selection import schedules
from thicket_jax.selection.halving import Halving

# Schedules.


def test_a_schedule_never_exceeds_its_budget_and_ends_with_k_experts_on_everything():
    rng, fitted = np.random.default_rng(0), 0
    for _ in range(400):
        num, items = int(rng.integers(1, 400)), int(rng.integers(1, 300))
        k, budget = int(rng.integers(1, min(num, 40) + 1)), float(rng.uniform(0.005, 1))
        try:
            plan = schedules.halving_schedule(num, items, k, budget)
        except ArgumentError as error:
            assert num + k * (items - 1) > budget * num * items - 1
            least = float(re.search(r"use ([\d.e-]+) or more", str(error))[1])
            plan = schedules.halving_schedule(num, items, k, least)
            budget = least
        else:
            fitted += 1
        first, last = plan.rounds[0], plan.rounds[-1]
        assert plan.evaluations <= budget * num * items * (1 + 1e-9)
        assert (first.experts, first.start, last.stop) == (num, 0, items)
        assert last.experts >= k
        for one, two in zip(plan.rounds, plan.rounds[1:], strict=False):
            assert one.experts > two.experts and one.stop == two.start < two.stop
            assert one.stop % plan.piece == 0
    assert fitted > 200


def test_a_budget_of_one_is_one_round_of_everything():
    plan = schedules.halving_schedule(9, 7, 2, 1)
    assert plan == schedules.Schedule(7, (schedules.Round(9, 0, 7),))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 8, 11, 0.5), "k=11 is larger than the population of 10"),
        ((10, 8, 2, 0.0), "budget=0.0 must be above 0"),
        ((10, 8, 2, 1.5), "budget=1.5 must be above 0, and 1 at most"),
        ((10, 8, 2, True), "budget=True must be above 0"),
        ((512, 32, 50, 0.1), "too small for 512 experts, 32 items and k=50: .* use 0.13 or more"),
        ((10, 8, 2, 0.5, 1), "use 1, or more rounds"),
    ],
)
def test_budgets_that_cannot_work_say_what_can(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        schedules.halving_schedule(*arguments)


# On devices.


@pytest.fixture(scope="module")
def recorded(population):
    """One halving; every (id, item) that was computed, in a list; and what progress was told."""
    computed, told, stream = [], [], pieces.PieceScorer.stream
    data = batch() | {"shift": np.ones(3, np.float32)}  # of no item: passed whole

    def watch(self, experts, items=None, most=None):
        start, stop = items
        for first, scores in stream(self, experts, items, most):
            some = np.asarray(experts.ids)[first : first + len(scores)]
            computed.extend((i, j) for i in some for j in self.order[start:stop])
            yield first, scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces.PieceScorer, "stream", watch)
        found = tj.halving(
            likelihood, params(), population, data, K, budget=0.3, **OPTIONS,
            progress=lambda done, most: told.append((done, most)),
        )  # fmt: skip
    return found, computed, told


def test_nothing_is_computed_twice_and_the_budget_holds(recorded):
    found, computed, told = recorded
    assert len(found.rounds) == 3
    assert len(computed) == len(set(computed)) == found.evaluations
    assert found.share == found.evaluations / (N * B) <= 0.3
    assert told[-1][0] == found.evaluations <= told[-1][1] <= 0.3 * N * B
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_every_expert_saw_the_first_items_of_one_order_with_the_outcomes_of_full_scoring(
    recorded, full
):
    found = recorded[0]
    scores, alive = found.scores, ~full.failed
    for i in np.flatnonzero(alive):
        here = found.order[: scores.seen[i]]
        np.testing.assert_allclose(scores.items[i, here], full.items[i, here], rtol=1e-5)
        assert np.isnan(np.delete(scores.items[i], here)).all()
        assert scores.values[i] == pytest.approx(full.items[i, here].mean(), rel=1e-5)
    counts = [int((scores.seen >= one.stop).sum()) for one in found.rounds]
    assert counts == [one.experts for one in found.rounds]


def test_who_goes_on_is_the_best_of_each_round_and_no_failed_expert(recorded, population, full):
    found = recorded[0]
    failed = np.flatnonzero(full.failed)
    assert 2 <= len(failed) <= N // 4
    assert found.scores.failed.tolist() == full.failed.tolist()
    assert (found.scores.values[failed] == -np.inf).all()
    assert (found.scores.seen[failed] == found.rounds[0].stop).all()
    alive = np.flatnonzero(~full.failed)
    for one, after in zip(found.rounds, found.rounds[1:], strict=False):
        means = full.items[alive][:, found.order[: one.stop]].mean(1)
        best = np.sort(alive[np.argsort(-means, kind="stable")[: after.experts]])
        assert np.flatnonzero(found.scores.seen > one.stop).tolist() == best.tolist()
        alive = best
    order = alive[np.argsort(-full.values[alive], kind="stable")][:K]
    assert ids(found.experts) == order.tolist()
    assert ids(tj.top_k(population, found.scores, K)) == order.tolist()


def test_one_device_finds_what_eight_find(recorded, population):
    found = recorded[0]
    again = tj.halving(
        likelihood, params(), population, batch(), K, budget=0.3, devices=jax.devices()[:1],
        block_size=2,
    )  # fmt: skip
    assert ids(again.experts) == ids(found.experts) and again.rounds == found.rounds
    np.testing.assert_allclose(again.scores.items, found.scores.items, rtol=1e-5)


def test_a_budget_of_one_is_the_top_k_of_full_scoring(population, full):
    found = tj.halving(likelihood, params(), population, batch(), K, budget=1, **OPTIONS)
    assert found.share == 1 and found.scores.seen.tolist() == [B] * N
    assert ids(found.experts) == ids(tj.top_k(population, full, K))
    np.testing.assert_allclose(found.scores.items, full.items, rtol=1e-5)


def test_ties_go_to_the_lower_id():
    experts = Population(KEY, np.arange(40)[::-1], np.ones(40), np.ones(40), tj.gaussian())
    rule = Halving(0.2)
    (_, second, _) = rule.schedule(40, 32, 3).rounds
    going = rule.keep(np.zeros((40, second.start), np.float32), experts, 40, 32, 3)
    assert sorted(experts.ids[going]) == list(range(second.experts))


def test_a_grade_sees_all_items_and_what_it_says_of_others_is_not_looked_at(population):
    wanted, shapes = np.asarray(batch()["label"]), []

    def grade(outputs):
        shapes.append(outputs.shape[1:])
        return (outputs == wanted).astype(np.float32)

    arguments = (params(), population, batch(), K)
    graded = tj.halving(labels, *arguments, budget=0.3, grade=grade, **OPTIONS)
    found = tj.halving(correct, *arguments, budget=0.3, **OPTIONS)
    assert set(shapes) == {(B,)} and ids(graded.experts) == ids(found.experts)
    np.testing.assert_array_equal(graded.scores.items, found.scores.items)
    with pytest.raises(ScoreError, match=r"for 48 items; return float32 \[n, B\]"):
        tj.halving(labels, *arguments, budget=0.3, grade=lambda x: np.ones((len(x), 3)), **OPTIONS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"score_fn": lambda p, b: p["w"].sum()}, ScoreError, r"float32\[\]; .* one outcome per"),
        ({"batch": None}, ScoreError, "no leaf of the batch has 6 items .*no arrays"),
        ({"batch": {"x": jnp.ones(5)}}, ScoreError, r"score_fn returned float32\[6\]"),
        ({"score_fn": lambda p, b: jnp.ones(6) * p["w"].sum()}, ScoreError, "for 1 of the items"),
        ({"k": 9}, ArgumentError, "k=9 is larger than the population of 8"),
        ({"k": 0}, ArgumentError, "k=0 must be a whole number"),
        ({"budget": 0.2}, ArgumentError, "budget=0.2 is too small for 8 experts, 6 items and k=2"),
        ({"rounds": 0}, ArgumentError, "rounds=0 must be a whole number"),
    ],
)
def test_what_cannot_work_is_one_line(change, error, message):
    if "score_fn" in change or change.get("batch", 0) != 0:
        fn = change.get("score_fn", lambda p, b: jnp.ones(6) * p["w"].sum())
    else:
        fn = lambda p, b: b["x"] * p["w"].sum()  # noqa: E731
    given = {"batch": {"x": jnp.ones(6)}, "k": 2, "budget": 0.5, **change}
    given.pop("score_fn", None)
    data, k = given.pop("batch"), given.pop("k")
    with pytest.raises(error, match=message) as caught:
        tj.halving(fn, {"w": jnp.zeros(2)}, tj.population(KEY, 8, 0.1), data, k, **given)
    assert "\n" not in str(caught.value)
