"""The numbers of a report: by hand, in their own unit, as valid JSON."""

import dataclasses
import json
import math

import numpy as np
import pytest
from reported_runs import ARRAYS, KEYS, experts_json, record, save, signals_record, write

from thicket_jax.analysis import intervals
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.reports import report
from thicket_jax.reports.results import build_results, sweep
from thicket_jax.runs import record as run_record
from thicket_jax.scoring import metrics


def test_results_by_hand():
    results = build_results(record())
    assert set(results) == KEYS
    assert (results["task"], results["num"], results["k"], results["failed"]) == (
        "digits", 5, [1, 3], 1,
    )  # fmt: skip
    assert (results["metric"], results["higher_is_better"], results["seed"]) == (
        "accuracy",
        True,
        7,
    )
    assert results["sigma"] == [0.001, 0.002]
    assert results["noise"] == "gaussian"
    half = math.sqrt(1 / 3) / 2  # s.e. of two right and two wrong answers
    assert results["base"] == {"train": 0.5, "test": 0.5, "test_stderr": pytest.approx(half)}
    best = results["best"]
    assert (best["id"], best["sigma"], best["train"], best["test"]) == (2, 0.001, 1.0, 0.5)
    one, three = results["ensemble"]
    # Votes of 3: [0, 1, 2, 2]: all right, against the base's two: differences 0, 1, 0, 1.
    assert (three["k"], three["combine"], three["test"], three["stderr"]) == (
        3, "majority_vote", 1.0, 0.0,
    )  # fmt: skip
    assert three["delta_vs_base"] == 0.5
    t3 = 3.182446305284263
    assert three["delta_ci95"] == pytest.approx([0.5 - t3 * half, 0.5 + t3 * half])
    assert (one["test"], one["delta_vs_base"]) == (0.5, 0.0)
    assert set(three) == {"k", "combine", "test", "stderr", "delta_vs_base", "delta_ci95"}
    small, large = results["density"]
    assert (small["sigma"], small["n"], small["mean"]) == (0.001, 3, 0.75)
    assert (small["fraction_ge"], small["fraction_gt"]) == (2 / 3, 1 / 3)
    assert (large["fraction_ge"], large["fraction_gt"]) == (0.5, 0.0)
    assert results["timing"] == {
        "setup_s": None, "compile_s": None, "score_s": 2.0, "ensemble_s": None,
        "experts_per_s": 2.5,
    }  # fmt: skip
    assert results["provenance"]["key"] == [0, 7]
    assert results["provenance"]["fingerprints"] == {"params": "abc"}


def test_ties_of_a_vote_go_to_the_better_rank():
    tied = record(answers=np.array([[0, 0, 0, 0], [1, 1, 1, 1]]), k=(2,))
    (row,) = build_results(tied)["ensemble"]
    assert row["test"] == 0.25  # the best expert's answers, of which one is right


def test_mse_is_in_its_own_unit():
    run = signals_record()
    results = build_results(run)
    assert results["higher_is_better"] is False
    assert results["base"]["train"] == 0.5
    assert results["best"]["train"] == pytest.approx(-np.nanmax(run.scores))
    per_item = ((run.base_answers - run.targets) ** 2).mean(1)
    assert results["base"]["test"] == pytest.approx(per_item.mean())
    assert results["base"]["test_stderr"] == pytest.approx(per_item.std(ddof=1) / 8)
    for row in results["ensemble"]:
        rule = np.mean if row["combine"] == "mean" else np.median
        items = ((rule(run.answers[: row["k"]], 0) - run.targets) ** 2).mean(1)
        delta, interval = intervals.paired_difference(items, per_item)
        assert row["test"] == pytest.approx(items.mean(), rel=1e-5)
        assert row["delta_vs_base"] == pytest.approx(delta, rel=1e-5)
        assert row["delta_ci95"] == pytest.approx(interval, rel=1e-4)
        assert row["delta_vs_base"] < 0
    for row in results["density"]:
        here = (run.sigmas == np.float32(row["sigma"])) & ~run.failed
        assert row["mean"] == pytest.approx(-run.scores[here].mean())
        assert row["fraction_ge"] == (run.scores[here] >= -0.5).sum() / 100
    assert [(row["k"], row["combine"]) for row in results["ensemble"]] == [
        (k, rule) for rule in ("mean", "median") for k in (1, 5, 20)
    ]


def test_sweep_equals_results_and_a_written_run(signals_run):
    run, folder = signals_record(), signals_run
    results, read = build_results(run), run_record.load(folder)
    assert json.loads((folder / "results.json").read_text()) == results
    assert sweep(run) == results["ensemble"]
    assert build_results(read) == results
    (row,) = sweep(read, [5], "median")
    assert row == next(r for r in results["ensemble"] if (r["k"], r["combine"]) == (5, "median"))
    assert [r["k"] for r in sweep(read, [3, 2, 3], "mean")] == [3, 2]
    assert build_results(read, [2], "mean")["k"] == [2]
    own = sweep(read, [4], lambda answers: answers[0])
    assert own[0]["test"] == sweep(read, [1], "mean")[0]["test"]


def test_logits_can_be_voted_and_averaged():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 50)
    logits = rng.normal(size=(4, 50, 3)).astype(np.float32)
    run = record(
        combines=("majority_vote", "mean_probs"), k=(4,), targets=targets, answers=logits,
        base_answers=logits[0], random_answers=None,
    )  # fmt: skip
    vote, probs = build_results(run)["ensemble"]
    counts = [np.bincount(v, minlength=3) for v in logits.argmax(-1).T]
    first = [
        next(label for label in ballots if count[label] == count.max())
        for ballots, count in zip(logits.argmax(-1).T, counts, strict=True)
    ]
    assert vote["test"] == pytest.approx((np.array(first) == targets).mean())
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert probs["test"] == pytest.approx((soft.mean(0).argmax(-1) == targets).mean())


def test_results_are_valid_json(tmp_path):
    run = signals_record(B=1, timing={"score_s": math.nan})  # one item: no error, no interval
    run = dataclasses.replace(run, answers=run.answers * np.float32(np.inf))
    results, _ = write(run, tmp_path / "run")
    text = (tmp_path / "run/results.json").read_text()

    def refuse(token):
        raise AssertionError(f"{token} in results.json")

    assert json.loads(text, parse_constant=refuse) == results
    assert results["base"]["test_stderr"] is None
    assert results["ensemble"][0]["delta_ci95"] == [None, None]
    assert results["ensemble"][0]["test"] is None
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_all_of_a_sigma_failed(tmp_path):
    experts = experts_json([1.0, 2.0, 0.0], [True, True, False], [0.1, 0.1, 0.2], base=0.5)
    run = record(experts=experts, train=None, answers=np.zeros((1, 4), int), k=(1,))
    results, _ = write(run, tmp_path / "run")
    assert results["density"][0]["mean"] is None
    assert results["failed"] == 2
    assert "2 of 3 experts failed" in (tmp_path / "run/report.md").read_text()
    everyone = experts_json([1.0], [True], [0.1], base=0.5)
    with pytest.raises(RunError, match=r"all 1 experts failed.*smaller sigma"):
        build_results(record(experts=everyone))


@pytest.mark.parametrize("missing", [("answers",), ARRAYS])
def test_a_run_without_test_answers(tmp_path, missing):
    run = record(random_answers=None, **dict.fromkeys(set(missing) - {"random_answers"}))
    results, paths = write(run, tmp_path / "run")
    assert results["base"]["train"] == 0.5
    assert results["best"]["train"] == 1.0
    assert results["best"]["test"] is None
    assert results["ensemble"] == []
    assert [row["n"] for row in results["density"]] == [3, 2]
    assert results["k"] == [1, 3]
    assert "no test answers" in (tmp_path / "run/report.md").read_text()
    assert all(path.exists() for path in paths)
    with pytest.raises(ArgumentError, match="no graded test answers"):
        build_results(run, [1])


def test_a_base_that_is_not_graded_on_test():
    results = build_results(record(base_answers=None))
    assert results["base"]["test"] is None
    assert results["ensemble"][1]["test"] == 1.0
    assert results["ensemble"][1]["delta_vs_base"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ks": [4]}, "k=4 is larger than the 3 experts"),
        ({"ks": [0]}, "k=0 must be a whole number"),
        ({"ks": [True]}, "k=True must be"),
        ({"ks": [1.5]}, "k=1.5 must be"),
        ({"combine": "mean"}, "'mean' does not fit answers int64.*choose one of: majority_vote"),
        ({"combine": "vote"}, "'vote' is not a rule of this package; choose one of"),
    ],
)
def test_bad_questions_get_one_line(options, words):
    with pytest.raises(ArgumentError, match=words) as caught:
        build_results(record(), **options)
    assert "\n" not in str(caught.value)


def test_signals_are_not_voted_on():
    for rule in ("majority_vote", "mean_probs"):
        with pytest.raises(ArgumentError, match=r"graded by mse; choose one of: mean, median$"):
            sweep(signals_record(), [1], rule)


def test_a_programs_own_metric_and_rule(tmp_path):
    def closeness(answers, targets):
        return -np.abs(answers - targets).astype(float)

    own = metrics.Metric("closeness", True, closeness)
    run = record("closeness", ("first",))
    rules = {"first": lambda answers: answers[0]}
    results = build_results(run, metric=own, rules=rules)
    assert results["ensemble"][0]["test"] == closeness(run.answers[0], run.targets).mean()
    for metric in (own, None):
        report.write(run, save(run, tmp_path / "run"), results, metric=metric)
        assert "An ensemble of 3" in (tmp_path / "run/report.md").read_text()
    with pytest.raises(ArgumentError, match="metric 'closeness' is a function of the program"):
        build_results(run_record.load(tmp_path / "run"))
    # A bare score without test answers needs no grading, so a log alone is enough.
    bare = record("score", random_answers=None, answers=None)
    assert build_results(bare)["best"]["train"] == 1.0
