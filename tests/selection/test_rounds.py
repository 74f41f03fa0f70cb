"""A search that selects in rounds: resumed inside a round, refused when changed, reported."""

import json
import shutil

import numpy as np
import pytest
from classifier import KEY, OPTIONS, B, K, N, batch, correct, ids, logits, params

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.reports.results import build_results
from thicket_jax.runs import log as run_log
from thicket_jax.runs import record as run_record
from thicket_jax.selection import rules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("best",), "select='best' is unknown; choose one of: all, halving, race"),
        (("all", 0.1), "budget is an option of select='halving', not of 'all'"),
        (("race", 0.1), "budget is an option of select='halving', not of 'race'"),
        (("halving", None, 0.1), "delta is an option of select='race'"),
        (("race", None, 1.0), "delta=1 promises nothing"),
        (("race", None, 2.0), "delta=2.0 must be above 0"),
        (("race", None, None, (1, 0)), r"bounds=\(1, 0\) must be two finite numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(ArgumentError, match=message):
        rules.check_rule(*words)


def search(run_dir, resume=False, select="halving", **options):
    given = {
        **({"budget": 0.3} if select == "halving" else {}),
        **{"predict_fn": logits, "test": batch(), "targets": np.asarray(batch()["label"])},
        "metric": "accuracy",
        "combine": [tj.majority_vote, tj.mean_probs],
    }
    return tj.randopt(
        correct, params(), batch(), key=KEY, num=N, k=(1, K), sigma=(0.2, 0.4),
        select=select, run_dir=run_dir, resume=resume, **OPTIONS, **(given | options),
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


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("number", [0, 2])
def test_resume_inside_a_round_equals_the_uninterrupted_run(finished, tmp_path, number):
    run_dir, _ = finished
    copy = unfinished(
        run_dir, tmp_path / "run", lambda r, start: r < number or (r == number and start == 0)
    )
    told = []
    search(copy, resume=True, progress=lambda done, total: told.append((done, total)))
    assert content(copy) == content(run_dir)
    assert told[0] == (64, 64) if number else 0 < told[0][0] < 64


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_an_ordinary_run_has_nothing_of_this(tmp_path):
    without_test = dict.fromkeys(("predict_fn", "test", "targets", "metric"))
    without_test["combine"] = tj.majority_vote
    found = search(tmp_path / "run", select="all", **without_test)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    experts = json.loads((tmp_path / "run" / "experts.json").read_text())
    assert "select" not in config and "selection" not in found.table
    assert set(experts) == {"population", "base", "experts"}
    assert set(experts["experts"][0]) == {"id", "sigma", "sign", "score", "failed", "rank"}
    assert found.scores.seen is None
    with pytest.raises(ArgumentError, match="keeps every outcome; leave out keep_items"):
        search(None, keep_items=False)


@pytest.mark.usefixtures("undrawn")
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
