"""Whole runs of language-model tasks: logged, reported, resumed."""

import json
import shutil

import numpy as np
import pytest
from kept_programs import kept_programs
from language_tasks import OWN, InProcess, build, refused, thicket, write

import thicket_jax as tj
from thicket_jax.mapping.placement import place
from thicket_jax.runs import export
from thicket_jax.runs import record as run_record
from thicket_jax.tasks.language import gsm8k, shared
from thicket_jax.text.graders import numbers
from thicket_jax.text.grading import Outcome

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("undrawn")
N, K, B_TRAIN, B_TEST, T = 6, 2, 6, 8, 6
RUN = ["--num", N, "--k", "1,2", "--sigma", "0.1", "--train-items", B_TRAIN, "--max-tokens", T]
RUN += ["--test-items", B_TEST, "--block-size", 1, "--backend", "none", "--grade-workers", 1]


@pytest.fixture(scope="module")
def data(models, tmp_path_factory):
    """Word problems whose right answers the tiny model, or an expert, happens to give."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"question": f"Ann has {i} apples and gets {i * i % 7} more." + " How many?" * (i % 3 + 1)}
        for i in range(B_TRAIN + B_TEST)
    ]

    def answer(answers):
        solved = [{**row, "answer": f"#### {x or 5}"} for row, x in zip(rows, answers, strict=True)]
        write(folder / "train.jsonl", solved[:B_TRAIN])
        write(folder / "test.jsonl", solved[B_TRAIN:])

    answer(["5"] * len(rows))
    out = folder.with_name("answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "Graders", InProcess)
        assert thicket("run", "gsm8k", *gsm8k_words(models, folder), "--out", out) == 0
    record = run_record.load(out)
    train = [record.train_strings[b % N, b] for b in range(B_TRAIN)]
    test = [(record.base_strings if b % 2 else record.strings[0])[b] for b in range(B_TEST)]
    answer([*train, *test])
    return folder


def gsm8k_words(models, data):
    words = ["--model", models / "plain", "--data", data, "--extraction", "flexible"]
    return [*words, *RUN, "--quiet"]


@pytest.fixture(scope="module")
def run(models, data, tmp_path_factory):
    """A finished run, with the graders in a process of their own."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert thicket("run", "gsm8k", *gsm8k_words(models, data), "--out", out) == 0
    return out


def test_the_log_keeps_every_answer_of_every_expert(run, models, data, tokenizer, in_process):
    """What items.npz has is what each expert's own tokens say, graded here one by one."""
    record = run_record.load(run)
    task = build(
        gsm8k,
        models / "plain",
        data=str(data),
        extraction="flexible",
        max_tokens=T,
        train_items=B_TRAIN,
        test_items=B_TEST,
    )
    experts = export.load_population(run)
    placement = place(task.problem.params, backend="none", block_size=1)
    programs = kept_programs()
    scorer = tj.Scorer.placed(
        task.problem.score_fn,
        task.problem.params,
        experts.noise,
        task.problem.train,
        placement,
        grade=task.problem.grade,
        with_id=True,
    )
    chunks = list(scorer.chunks(experts))
    assert kept_programs() <= programs  # the run's own program
    tokens = np.concatenate([chunk.outputs["tokens"] for chunk in chunks]).reshape(N, B_TRAIN, T)
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    ranks = np.argsort(record.ranks)
    for expert, position in enumerate(ranks):
        for b, row in enumerate(rows):
            kept = tokens[expert, b].tolist()
            kept = kept[: kept.index(1)] if 1 in kept else kept
            outcome = numbers.grade(tokenizer.decode(kept), {**row, "extraction": "flexible"})
            assert record.train_strings[position, b] == outcome.answer
            assert record.train[position, b] == outcome.score
            assert record.train_columns["strict"][position, b] == outcome.columns["strict"]
            assert record.train_columns["tokens"][position, b] == min(len(kept) + 1, T)
    np.testing.assert_allclose(record.scores, record.train.mean(1))
    assert len(set(record.train_strings.flat)) > 4 and 0 < record.train.sum() < record.train.size


def test_texts_and_outcomes_of_the_kept_and_the_base_belong_together(run, data):
    record = run_record.load(run)
    results = json.loads((run / "results.json").read_text())
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    assert record.texts.shape == record.strings.shape == (K, B_TEST)
    texts = [*record.texts, record.base_texts]
    strings = [*record.strings, record.base_strings]
    classes = [*record.answers, record.base_answers]
    columns = [{n: x[k] for n, x in record.columns.items()} for k in range(K)]
    columns += [record.base_columns]
    scores = np.zeros((K + 1, B_TEST))
    for k in range(K + 1):
        for b, row in enumerate(rows):
            outcome = numbers.grade(texts[k][b], {**row, "extraction": "flexible"})
            assert strings[k][b] == outcome.answer
            assert columns[k]["flexible"][b] == scores[k, b] == outcome.score or outcome.score
            scores[k, b] = outcome.score
            if outcome.answer is None:
                assert classes[k][b] == -1
            else:
                assert record.targets[b, classes[k][b]] == outcome.score
    assert results["base"]["test"] == scores[K].mean() > 0
    assert results["best"]["test"] == scores[0].mean()


def test_every_report_has_the_baselines_and_the_gains(run):
    results = json.loads((run / "results.json").read_text())
    record = run_record.load(run)
    rules = ("majority_vote", "weighted_vote")
    assert [(r["k"], r["combine"]) for r in results["ensemble"]] == [
        (k, rule) for rule in rules for k in (1, 2)
    ]
    names = ("base", "self_consistency", "random_control", "best_single")
    assert {(r["name"], r["k"], r["combine"]) for r in results["baselines"]} == {
        (name, k, rule) for name in names for k in (1, 2) for rule in rules
    }
    right = record.targets[np.arange(B_TEST), record.sample_answers[0]]
    alone = np.where(record.sample_answers[0] < 0, 0, right).mean()
    row = next(r for r in results["baselines"] if (r["name"], r["k"]) == ("self_consistency", 1))
    assert row["test"] == pytest.approx(alone)
    gains = results["gains"]
    assert gains["base"] == {
        name: record.base_columns[name].mean() for name in ("strict", "flexible")
    }
    strict, flexible = (record.base_columns[name] > 0.5 for name in ("strict", "flexible"))
    now = record.columns["flexible"][0] > 0.5
    best = next(row for row in gains["rows"] if row["name"] == "best_single")
    assert best["format_only"]["count"] == sum(~strict & flexible & now)
    assert best["reasons_better"]["count"] == sum(~strict & ~flexible & now)
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        for part in (
            "Equal-inference baselines",
            "self-consistency, 2 of the base",
            "random control, 2 unselected",
            "best single expert",
            "temperature 0.7",
            "Format and reasoning",
        ):
            assert part in text


def test_report_needs_no_model(run, models, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "log")
    away = (models / "plain").rename(models / "away")
    try:
        for vote in ("majority", "weighted"):
            assert thicket("report", copy, "--k", "1,2", "--vote", vote) == 0
            found = json.loads((copy / "results.json").read_text())["ensemble"]
            whole = json.loads((run / "results.json").read_text())["ensemble"]
            assert found == [row for row in whole if row["combine"] == f"{vote}_vote"]
            assert f"ensemble of 2, {vote}_vote" in capsys.readouterr().out
        assert "k=3 is larger than the 2" in refused(capsys, "report", copy, "--k", "1,3")
    finally:
        away.rename(models / "plain")


def unfinished(run, to):
    """A copy of a finished run as it was before its last experts were scored."""
    copy = shutil.copytree(run, to)
    for name in ("results.json", "experts.json", "items.npz"):
        (copy / name).unlink()
    shutil.rmtree(sorted((copy / "log").glob("experts_*"))[-1])
    return copy


def test_a_run_is_resumed_unless_a_right_answer_changed(run, data, tmp_path, capsys, in_process):
    copy = unfinished(run, tmp_path / "copy")
    lines = (data / "test.jsonl").read_text()
    (data / "test.jsonl").write_text(lines.replace("#### 355", "#### 356", 1))
    try:
        line = refused(capsys, "resume", copy, "--backend", "none", "--quiet")
        assert "is a different run and cannot be resumed: fingerprints.test was" in line
    finally:
        (data / "test.jsonl").write_text(lines)
    assert thicket("resume", copy, "--backend", "none", "--quiet") == 0
    before, after = (json.loads((x / "results.json").read_text()) for x in (run, copy))
    assert after["ensemble"] == before["ensemble"] and after["baselines"] == before["baselines"]


def test_answers_are_asked_for_as_the_options_say(run, models, data, tmp_path, in_process):
    """Cut at a text of the test's choice, and sampled for selection; resumed to the same end."""
    before = run_record.load(run)
    stop = next(text[1:3] for text in before.base_texts if len(text) > 3)
    words = [*gsm8k_words(models, data), "--temperature", 0.9, "--stop", stop]
    out, programs = tmp_path / "run", kept_programs()
    assert thicket("run", "gsm8k", *words, "--out", out) == 0
    assert kept_programs() <= programs  # a temperature is data
    record = run_record.load(out)
    assert record.base_texts.tolist() == [text.partition(stop)[0] for text in before.base_texts]
    cut = record.base_texts != before.base_texts
    tokens, whole = record.base_columns["tokens"], before.base_columns["tokens"]
    assert cut.any() and (tokens <= whole).all()
    lengths = [len(text) + len(stop) for text in record.base_texts[cut]]
    np.testing.assert_array_equal(tokens[cut], lengths)  # of bytes
    assert (record.train_strings != before.train_strings).any()
    asked = record.config["task_provenance"]["asked"]
    assert asked["stop strings"][-1] == stop and asked["answers to test items"] == "greedy"
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        for part in (
            "How it was asked",
            "selected by answers sampled at temperature 0.9",
            "Ann has",
        ):
            assert part in text
    copy = unfinished(out, tmp_path / "copy")
    assert thicket("resume", copy, "--backend", "none", "--quiet") == 0
    first, again = (json.loads((x / "experts.json").read_text()) for x in (out, copy))
    assert first == again


def test_a_run_of_stories(run, models, tmp_path, in_process, monkeypatch):
    programs = kept_programs()
    # What only fills the prompts up would be a part of its own.
    monkeypatch.setattr(shared, "shared_prefix", lambda prompts: 0)
    width = run_record.load(run).config["task_provenance"]["prompt_tokens"]
    words = ["--model", models / "chat", "--system", "x" * (width - 88), "--out", tmp_path / "run"]
    assert thicket("run", "stories", *words, *RUN) == 0
    assert kept_programs() <= programs  # equal shapes are one program
    record = run_record.load(tmp_path / "run")
    assert record.config["task_provenance"]["prompt_tokens"] == width
    assert record.train.shape == (N, B_TRAIN) and record.texts.shape == (K, B_TEST)
    assert set(record.train_strings.flat) == {"not named"} and not record.train.any()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "gains" not in results and len(results["baselines"]) == 16
    assert "Format and reasoning" not in (tmp_path / "run" / "report.md").read_text()


def test_a_run_in_bfloat16_that_selects_on_a_test_set_says_so(models, data, tmp_path, in_process):
    words = ["--model", models / "plain", "--precision", "bfloat16", "--out", tmp_path / "run"]
    few = [
        4 if before in ("--train-items", "--test-items") else word
        for before, word in zip(["", *RUN], RUN, strict=False)
    ]
    words += ["--data", data / "test.jsonl", "--allow-test-selection", *few, "--where", "lm_head"]
    assert thicket("run", "gsm8k", *words) == 0
    record = run_record.load(tmp_path / "run")
    assert "bfloat16" in record.config["model"] and record.train.shape == (N, 4)
    assert len({text for row in record.texts for text in row}) > 1
    for name in ("report.md", "report.html"):
        text = (tmp_path / "run" / name).read_text()
        assert "experts were selected on items of test.jsonl, a published test set" in text
        assert "split at random without overlap" in text


def test_a_grader_that_raises_stops_the_run_and_once_mended_it_goes_on(
    run, models, tmp_path, capsys, monkeypatch
):
    width = run_record.load(run).config["task_provenance"]["prompt_tokens"]
    programs = kept_programs()
    rows = [{"question": f"Number {i}?", "answer": i} for i in range(B_TRAIN + B_TEST)]
    write(tmp_path / "all.csv", rows)
    own = tmp_path / "own.py"
    own.write_text("def grade(text, item):\n    raise ValueError('no\\nway')\n")
    words = ["--model", models / "plain", "--data", tmp_path / "all.csv", "--out", tmp_path / "run"]
    words += ["--grader", f"{own}:grade", "--prompt", f"{{question:.<{width}}}", "--quiet"]
    line = refused(capsys, "run", "qa", *words, *RUN)
    assert f"grader {own}:grade raised ValueError: no way (own.py:2) on item 0" in line
    assert "mend the grader or the item; items are numbered from 0, the 6 training items" in line
    assert line.endswith("what is scored is kept in the log")
    assert kept_programs() <= programs  # equal shapes are one program
    own.write_text(OWN)
    monkeypatch.setattr(shared, "Graders", InProcess)
    assert thicket("resume", tmp_path / "run", "--backend", "none", "--quiet") == 0
    record = run_record.load(tmp_path / "run")
    assert set(record.train_columns) == {"digits", "tokens"} and len(set(record.scores)) > 1
    assert "weighted_vote" in capsys.readouterr().out


def test_how_many_answers_ran_into_the_time_limit_is_told(
    run, models, data, tmp_path, monkeypatch, capsys
):
    """Late in some blocks only: a column of the log, a line on the terminal and in the report."""
    late = {1, B_TRAIN + 2}  # items

    class Late(InProcess):
        def grade(self, texts):
            missed = {"strict": 0.0, "flexible": 0.0}
            return [
                Outcome(None, 0.0, missed, timed_out=True)
                if index in late and len(text) % 2 == 0
                else found
                for (index, text), found in zip(texts, super().grade(texts), strict=True)
            ]

    monkeypatch.setattr(shared, "Graders", Late)
    out = tmp_path / "late"
    assert thicket("run", "gsm8k", *gsm8k_words(models, data), "--out", out) == 0
    record = run_record.load(out)
    train = sum(c["timed_out"].sum() for c in (record.train_columns, record.base_train_columns))
    assert train > 0 and not record.train_columns["timed_out"][:, [0, *range(2, B_TRAIN)]].any()
    results = json.loads((out / "results.json").read_text())
    assert results["timed_out"]["train"] == train and results["timed_out"]["test"] > 0
    shown = f"ran into the time limit: {train:.0f} train, {results['timed_out']['test']} test"
    assert shown in capsys.readouterr().out
    assert "ran into the time limit" in (out / "report.html").read_text()
    plain = json.loads((run / "results.json").read_text())
    assert "timed_out" not in plain and "timed_out" not in run_record.load(run).train_columns
