"""Selection in rounds: budgets, bounds, the same items for all, nothing twice, resume inside."""

import importlib
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.errors import ArgumentError, RunError, ScoreError
from thicket_jax.experts.population import Population
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping import programs
from thicket_jax.reports.results import build_results
from thicket_jax.runs import log as run_log
from thicket_jax.runs import record as run_record
from thicket_jax.scoring import layouts, pieces
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.selection import bounds, rules, schedules
from thicket_jax.selection import rounds as racing
from thicket_jax.selection.halving import Halving
from thicket_jax.selection.race import Race
from thicket_jax.tasks import task as task_module
from thicket_jax.text import prompts

KEY = jax.random.key(3)
N, B, K = 64, 48, 4
OPTIONS = {"block_size": 2}


def batch():
    """48 items of 4 features, with labels, and a leaf that has no items."""
    rng = np.random.default_rng(2)
    return {
        "image": jnp.asarray(rng.normal(size=(B, 4)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 4, B), jnp.int32),
        "shift": jnp.ones(3, jnp.float32),
    }


def params():
    """One leaf, so that programs compile fast."""
    return {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)}


def logits(params, batch):
    return batch["image"] @ params["w"]


def likelihood(tree, batch):
    """The log-probability of the label [B]; NaN for about one expert in ten, which fails."""
    log_probs = jax.nn.log_softmax(logits(tree, batch) * batch["shift"][0])
    found = jnp.take_along_axis(log_probs, batch["label"][:, None], 1)[:, 0]
    return jnp.where(tree["w"][0, 0] > params()["w"][0, 0] + 0.4, jnp.nan, found)


def correct(params, batch):
    """1 where the label is predicted [B]."""
    return (labels(params, batch) == batch["label"]).astype(jnp.float32)


def labels(params, batch):
    """Predicted labels, graded on the host."""
    return logits(params, batch).argmax(-1).astype(jnp.int32)


@pytest.fixture(scope="module")
def population():
    return tj.population(KEY, N, 0.3)


@pytest.fixture(scope="module")
def full(population):
    return tj.score(likelihood, params(), population, batch(), **OPTIONS)


def ids(experts):
    return np.asarray(experts.ids).tolist()


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
        ((10, 8, 2, 0.0), "budget=0 must be above 0"),
        ((10, 8, 2, 1.5), "budget=1.5 must be above 0, and 1 at most"),
        ((10, 8, 2, True), "budget=True must be above 0"),
        ((512, 32, 50, 0.1), "too small for 512 experts, 32 items and k=50: .* use 0.13 or more"),
        ((10, 8, 2, 0.5, 1), "use 1, or more rounds"),
    ],
)
def test_budgets_that_cannot_work_say_what_can(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        schedules.halving_schedule(*arguments)


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


@pytest.mark.parametrize("limits", [(0, 1), None], ids=["bounded", "observed"])
def test_a_race_finds_the_true_best_as_often_as_it_promises(limits):
    found, work = share_found(rules.check_rule("race", None, 0.1, limits))
    assert found >= 0.9
    assert work < 0.85


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


def test_the_order_of_the_items_is_one_permutation_of_the_key_alone():
    order = layouts.item_order(KEY, B)
    assert sorted(order) == list(range(B)) and order.tolist() != sorted(order)
    assert layouts.item_order(jax.random.key(4), B).tolist() != order.tolist()
    assert layouts._ORDER_STREAM >= 2**31  # which no expert's id reaches


@pytest.fixture(scope="module")
def recorded(population):
    """One halving; every (id, item) that was computed, in a list; and how often it compiled."""
    computed, compiled = [], []
    stream, compile_ = pieces.PieceScorer.stream, programs._compile

    def watch(self, experts, start, stop, most=None):
        for first, scores in stream(self, experts, start, stop, most):
            some = np.asarray(experts.ids)[first : first + len(scores)]
            computed.extend((i, j) for i in some for j in self.order[start:stop])
            yield first, scores

    def count(*arguments):
        compiled.append(arguments)
        return compile_(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces.PieceScorer, "stream", watch)
        patch.setattr(programs, "_compile", count)
        told = []
        found = tj.halving(
            likelihood, params(), population, batch(), K, budget=0.3, **OPTIONS,
            progress=lambda done, most: told.append((done, most)),
        )  # fmt: skip
    return found, computed, compiled, told


def test_nothing_is_computed_twice_and_the_budget_holds(recorded):
    found, computed, _, told = recorded
    assert len(found.rounds) == 3
    assert len(computed) == len(set(computed)) == found.evaluations
    assert found.share == found.evaluations / (N * B) <= 0.3
    assert told[-1][0] == found.evaluations <= told[-1][1] <= 0.3 * N * B
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_all_rounds_are_one_program(recorded):
    assert len(recorded[2]) == 1


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


def test_who_goes_on_is_the_best_of_each_round_and_no_failed_expert(recorded, full):
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
    assert ids(tj.top_k(recorded_population(), found.scores, K)) == order.tolist()


def recorded_population():
    return tj.population(KEY, N, 0.3)


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


@pytest.fixture(scope="module")
def race(population):
    return tj.race(likelihood, params(), population, batch(), K, delta=0.2, **OPTIONS)


def test_a_race_finds_the_best_and_says_on_what_condition(race, population, full):
    assert ids(race.experts) == ids(tj.top_k(population, full, K))
    alive = ~full.failed
    stopped = int((race.scores.seen[alive] < B).sum())
    assert race.guarantee.delta == 0.2 and race.guarantee.bounds is None
    assert race.guarantee.stopped == stopped > 0
    assert "With probability at least 0.8" in race.guarantee.sentence
    assert "no known bounds" in race.guarantee.sentence
    assert race.guarantee.comparisons == K * (N - K) * (len(range(0, B, 4)) - 1)


def test_a_race_that_can_stop_nobody_says_so(population):
    found = tj.race(correct, params(), population[:8], batch(), 3, bounds=(0, 1), **OPTIONS)
    assert found.share == 1 and found.guarantee.sentence.startswith("Nothing could be stopped")
    with pytest.raises(ScoreError, match=r"an outcome of 1 lies outside the bounds 0 to 0\.5"):
        tj.race(correct, params(), population[:8], batch(), 3, bounds=(0, 0.5), **OPTIONS)


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


def spoken(params, batch):
    """Laid out like generated text: chunks of rows, each output of its own prompt alone."""
    shift = jnp.round(8 * params["w"]).astype(jnp.int32)
    tokens = (batch["tokens"][..., -3:] + shift[None, None]) % 11
    return {"tokens": tokens, "finite": batch["row"] >= 0}


def test_prompts_lie_in_chunks_of_rows_and_longer_batches_take_several_runs():
    rng = np.random.default_rng(0)
    asked = [rng.integers(1, 11, rng.integers(3, 9)).tolist() for _ in range(21)]
    layout = {"rows": 4, "chunks": 3, "width": 8, "pad_id": 0}
    train = prompts.lay_out(asked[:10], **layout)
    test = prompts.lay_out(asked[10:21], first=10, **layout)
    experts, params = tj.population(KEY, 16, 0.5), {"w": jnp.zeros(3)}

    def grade(outputs):
        found = prompts.unlay(outputs["tokens"], 10)
        right = (found.sum(-1) % 3 == 0).astype(np.float32)
        return np.where(prompts.unlay(outputs["finite"], 10), right, np.float32(np.nan))

    mapper = dv.mapper(None, "pmap", params)
    common = {"mapper": mapper, "grade": grade, "block_size": 2}
    plain = Scorer(spoken, params, experts, train, **common)
    scorer = pieces.PieceScorer(
        spoken, params, experts, train, piece=lambda _: 3, layout=prompts.LAYOUT, **common
    )
    (whole,) = [part for _, part in plain.stream(experts)]
    np.testing.assert_array_equal(scorer.all_items(experts).items, whole.items)
    found = racing.run(scorer, experts, Race(0.5, (0, 1)), 2)[0]
    assert ids(found.experts) == ids(tj.top_k(experts, whole, 2))
    for given in (test, train):
        (wanted,), (answered,) = (
            plain.map.on(given).chunks(experts),
            scorer.on(given).chunks(experts),
        )
        count = prompts.LAYOUT.count(given)
        for name in ("tokens", "finite"):
            np.testing.assert_array_equal(
                prompts.unlay(answered.outputs[name], count),
                prompts.unlay(wanted.outputs[name], count),
            )


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("best",), "select='best' is unknown; choose one of: all, halving, race"),
        (("all", 0.1), "budget is an option of select='halving', not of 'all'"),
        (("race", 0.1), "budget is an option of select='halving', not of 'race'"),
        (("halving", None, 0.1), "delta is an option of select='race'"),
        (("race", None, 1.0), "delta=1 promises nothing"),
        (("race", None, 2.0), "delta=2 must be above 0"),
        (("race", None, None, (1, 0)), r"bounds=\(1, 0\) must be two finite numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(ArgumentError, match=message):
        rules.check_rule(*words)


# The pipeline.


def search(run_dir, resume=False, select="halving", **options):
    given = {
        **({"budget": 0.3} if select == "halving" else {}),
        **{"predict_fn": logits, "test": batch(), "targets": np.asarray(batch()["label"])},
        "metric": "accuracy",
    }
    return tj.randopt(
        correct, params(), batch(), key=KEY, num=N, k=(1, K), sigma=(0.2, 0.4),
        combine=[tj.majority_vote, tj.mean_probs], select=select, run_dir=run_dir, resume=resume,
        **OPTIONS, **(given | options),
    )  # fmt: skip


def content(run_dir):
    results = json.loads((run_dir / "results.json").read_text())
    results.pop("timing"), results.pop("provenance")
    with np.load(run_dir / "items.npz") as items:
        arrays = {name: items[name].tobytes() for name in items.files}
    return json.loads((run_dir / "experts.json").read_text()), results, arrays


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a segment for every call, and its result."""
    run_dir = tmp_path_factory.mktemp("racing") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_log, "SECONDS_BETWEEN_SEGMENTS", -1.0)
        return run_dir, search(run_dir)


def unfinished(run_dir, to, keep):
    """A copy as a kill leaves it: of the segments, only those for which `keep(round, start)`."""
    shutil.copytree(run_dir, to)
    for name in ("experts.json", "results.json", "items.npz", "report.md", "report.html"):
        (to / name).unlink()
    for segment in (to / "log").glob("round*"):
        number, start, _ = segment.name.split("_")
        if not keep(int(number.removeprefix("round")), int(start)):
            shutil.rmtree(segment)
    return to


@pytest.mark.parametrize("number", [0, 1, 2])
def test_resume_inside_a_round_equals_the_uninterrupted_run(finished, tmp_path, number):
    run_dir, _ = finished
    copy = unfinished(
        run_dir, tmp_path / "run", lambda r, start: r < number or (r == number and start == 0)
    )
    told = []
    search(copy, resume=True, progress=lambda done, total: told.append((done, total)))
    assert content(copy) == content(run_dir)
    assert told[0] == (64, 64) if number else 0 < told[0][0] < 64


def test_an_interrupt_in_the_second_round_keeps_what_is_scored(finished, tmp_path):
    run_dir, found = finished
    second = found.table["selection"]["rounds"][1]["experts"]

    def stop(done, total):
        if total == second and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", progress=stop)
    names = sorted(path.name for path in (tmp_path / "run" / "log").glob("round*"))
    assert names[-1].startswith("round0001_00000000_") and len(names) >= 2
    search(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(run_dir)


def test_segments_of_other_survivors_and_other_budgets_are_refused(finished, tmp_path):
    run_dir, _ = finished
    copy = unfinished(run_dir, tmp_path / "run", lambda r, start: r < 2)
    with pytest.raises(RunError, match=r"select\.budget was 0\.3, is now 0\.31"):
        search(copy, resume=True, budget=0.31)
    with pytest.raises(RunError, match="select was .*, is now null"):
        search(copy, resume=True, select="all")
    log = run_log.RunLog(copy, N)
    first = next(log.round(0, np.arange(N), 1.0).segments())
    other = log.round(7, np.arange(5, 5 + len(first[1])), 1.0)
    other.append(0, first[1], 0.0)
    other.flush()
    with pytest.raises(RunError, match="its experts are not those of this round"):
        list(log.round(7, np.arange(len(first[1])), 1.0).segments())


def test_experts_and_results_say_how_many_items_each_expert_saw(finished):
    run_dir, found = finished
    experts, results, arrays = content(run_dir)
    selection = results["selection"]
    assert selection == experts["selection"]
    assert selection["rule"] == "halving" and selection["budget"] == 0.3
    assert 0 < selection["share"] <= 0.3 and selection["guarantee"] is None
    items = np.frombuffer(arrays["train"], np.float32).reshape(N, B)
    seen = [row["items"] for row in experts["experts"]]
    assert seen == np.isfinite(items).sum(1).tolist() == found.scores.seen.tolist()
    assert sum(seen) == selection["evaluations"]
    best = sorted(experts["experts"], key=lambda row: row["rank"])[:K]
    assert [row["id"] for row in best] == ids(found.experts)
    assert {row["items"] for row in best} == {B}


def test_density_compares_an_expert_with_the_base_on_the_items_that_it_saw(finished):
    run_dir, _ = finished
    record = run_record.load(run_dir)
    base, better = record.base_train, {0.2: [], 0.4: []}
    for row, items in zip(record.experts["experts"], record.train, strict=True):
        here = np.isfinite(items)
        assert row["base"] == pytest.approx(base[here].mean())
        sigma = float(str(np.float32(row["sigma"])))
        better[sigma].append(items[here].mean() >= base[here].mean())
    results = build_results(record)
    for row in results["density"]:
        assert row["fraction_ge"] == pytest.approx(np.mean(better[row["sigma"]]))
        assert 0 <= row["mean"] <= 1
    stored = json.loads((run_dir / "results.json").read_text())
    assert results["density"] == stored["density"] and results["ensemble"] == stored["ensemble"]


def test_the_report_says_it_in_plain_words(finished):
    run_dir, _ = finished
    text = (run_dir / "report.md").read_text()
    for words in (
        "Not every expert was scored on every train item",
        "of 30 % that the budget allows",
        "Each is compared with the base on the items that it saw itself",
        "Halving gives no guarantee",
        "train items",
    ):
        assert words in text


def test_a_race_in_the_pipeline_knows_the_bounds_of_accuracy():
    found = search(None, select="race", delta=0.2)
    guarantee = found.table["selection"]["guarantee"]
    assert guarantee["bounds"] == [0, 1] and guarantee["delta"] == 0.2
    scores = tj.score(correct, params(), found.population, batch(), **OPTIONS)
    assert ids(found.experts) == ids(tj.top_k(found.population, scores, K))


def test_an_ordinary_run_has_nothing_of_this(tmp_path):
    without_test = dict.fromkeys(("predict_fn", "test", "targets", "metric"))
    found = search(tmp_path / "run", select="all", **without_test)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    experts = json.loads((tmp_path / "run" / "experts.json").read_text())
    assert "select" not in config and "selection" not in found.table
    assert set(experts) == {"population", "base", "experts"}
    assert set(experts["experts"][0]) == {"id", "sigma", "sign", "score", "failed", "rank"}
    assert found.scores.seen is None
    with pytest.raises(ArgumentError, match="keeps every outcome; leave out keep_items"):
        search(None, keep_items=False)


class TinyTask:
    """A task module as the experiment sees one, with a model that compiles fast."""

    Options = task_module.Options

    @staticmethod
    def build(options):
        data = {"image": jnp.tile(batch()["image"], (2, 1))[:64], "shift": jnp.ones(3)}
        data["label"] = jnp.tile(batch()["label"], 2)[:64]
        assert options.train_items == 64 and options.num == 100
        return task_module.Task(
            name="tiny", model="tiny", metric="accuracy", params=params(), score_fn=correct,
            train=data, combines=("majority_vote",), predict_fn=logits, test=data,
            targets=np.asarray(data["label"]),
        )  # fmt: skip


def test_the_experiment_measures_every_way_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch, capsys
):
    """Its quick form, on a task that compiles fast."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2]))
    main = importlib.import_module("experiments.racing.__main__").main
    measure = importlib.import_module("experiments.racing.measure")
    monkeypatch.setattr(measure.registry, "module", lambda name: TinyTask)
    words = ["--quick", "--tasks", "signals", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "signals seed 0, halving, 0.1: " in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    (run,) = table["runs"]
    assert list(run["ways"]) == ["full", "halving, 0.1", "race, 0.05"]
    full, half, race = run["ways"].values()
    assert full["found"] == 2 <= full["as_good"] and full["share"] == 1 and not full["rounds"]
    assert 0.05 < half["share"] <= 0.1
    assert full["lost"] == race["lost"] == 0 <= half["lost"] < 1
    assert race["found"] <= race["as_good"] == 2 and race["guarantee"]["bounds"] == [0, 1]
    for row in table["summary"]:
        assert row["seconds"] > row["score_seconds"] > 0 and row["cold_seconds"] is None
        assert row["share"] == run["ways"][row["way"]]["share"]
    faster = full["seconds"]["total"] / half["seconds"]["total"]
    found, share, warm, cold = table["targets"]
    assert found["measured"] == half["found"] / 2 and found["met"] == (half["found"] == 2)
    assert share["met"] and warm["measured"] == pytest.approx(faster) and cold["met"] is None
    text = (tmp_path / "table.md").read_text()
    assert "| halving, 0.1 |" in text and "**stories** was not measured" in text
    assert "experts to item: 100 to" in text
    monkeypatch.setattr(measure, "measure", None)
    assert main(words) == 0 and (tmp_path / "table.md").read_text() == text
    assert main(["--tasks", "digits", "--out", str(tmp_path)]) == 2
    assert "has runs of other sizes" in capsys.readouterr().err
    assert main([*words, "--tasks", "cubes"]) == 2
    assert "tasks='cubes' is unknown" in capsys.readouterr().err


def test_select_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["run", "signals", "--pretrain", "xavier", "--num", "24", "--train-items", "16"]
    words += ["--test-items", "8", "--k", "1,3", "--block-size", "1", "--out", str(run)]
    words += ["--cache", str(tmp_path / "cache"), "--where", "layer_4", "--select"]
    assert main([*words, "halving", "--delta", "0.1"]) == 2
    assert main([*words, "halving", "--budget", "0.1"]) == 2
    assert "budget=0.1 is too small for 24 experts, 16 items and k=3" in capsys.readouterr().err
    assert not run.exists()
    assert main([*words, "halving", "--budget", "0.4"]) == 0
    said = capsys.readouterr()
    assert "halving: " in said.out and "round 2, items " in said.err
    for name in ("results.json", "experts.json", "items.npz"):
        (run / name).unlink()
    shutil.rmtree(sorted((run / "log").glob("round0001*"))[-1])
    assert main(["resume", str(run)]) == 0
    assert main(["export", str(run), "--rank", "1", "--to", str(tmp_path / "best")]) == 0
