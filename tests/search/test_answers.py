"""Answers that the host reads: logged for all, voted as classes, compared at equal inference."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reported_runs
from kept_programs import kept_programs

import thicket_jax as tj
from thicket_jax.cli.main import main
from thicket_jax.ensembles.combine import combine_rule
from thicket_jax.errors import ArgumentError, DataError, RunError, ScoreError
from thicket_jax.mapping import blocks
from thicket_jax.mapping.blocks import Chunk
from thicket_jax.mapping.placement import place
from thicket_jax.reports import figures
from thicket_jax.runs import digests
from thicket_jax.runs import log as run_log
from thicket_jax.runs import record as run_record
from thicket_jax.scoring import metrics
from thicket_jax.scoring.scores import Graded
from thicket_jax.search import answers, pipeline
from thicket_jax.search.problem import Answering, Problem, Settings

pytestmark = pytest.mark.usefixtures("undrawn")
# A language model of four parameters: an answer is a whole number, written as text.
B, SIZES, N, KS = 6, (6, 4), 48, (1, 3)
PARAMS = {"w": jnp.asarray([0.5, -1.0, 0.25, 1.5])}


def write(params, batch, draw):
    """One number an item, int32 [B]; with a temperature, another one for every draw."""
    key = jax.random.fold_in(jax.random.wrap_key_data(batch["key"]), draw)
    noise = jax.random.normal(key, batch["x"].shape[:1])
    value = batch["x"] @ params["w"] + batch["temperature"] * noise
    return jnp.round(2 * value).astype(jnp.int32)


def batch(seed, temperature=0.0):
    x = np.random.default_rng(seed).normal(size=(B, 4)).astype(np.float32)
    key = np.asarray(jax.random.key_data(jax.random.key(9)))
    return {"x": x, "key": key, "temperature": np.float32(temperature)}


def gold(seed):
    """Every second item asks for something else than what the base says."""
    right = np.round(2 * (batch(seed)["x"] @ np.asarray(PARAMS["w"]))).astype(np.int32)
    return right + np.arange(B) % 2


def read(numbers, wanted):
    """Numbers that 5 divides are no answer; odd ones are not in form."""
    right = (numbers == wanted) & (numbers % 5 != 0)
    texts = [[f"The answer is {number}." for number in row] for row in numbers]
    found = [[None if number % 5 == 0 else str(number) for number in row] for row in numbers]
    columns = {"strict": right & (numbers % 2 == 0), "flexible": right, "tokens": 3 + 0 * numbers}
    return Graded(
        right.astype(np.float32),
        np.array(found, object),
        {name: column.astype(np.float32) for name, column in columns.items()},
        np.array(texts, object),
    )


def classes(found):
    """Equal strings, numbered by first appearance."""
    out = np.full(found.shape, -1, np.int32)
    for item in range(found.shape[1]):
        seen = {}
        for row, text in enumerate(found[:, item]):
            if text is not None:
                out[row, item] = seen.setdefault(text, len(seen))
    return out


def answering(**changes):
    values = {
        "pieces": (batch(1), batch(2)),
        "sampled": (batch(1, 0.7), batch(2, 0.7)),
        "read": lambda piece, out: read(out[:, : SIZES[piece]], gold(1 + piece)[: SIZES[piece]]),
        "classes": classes,
        "sizes": SIZES,
    }
    return Answering(**(values | changes))


def problem(**changes):
    values = {
        "score_fn": write,
        "params": PARAMS,
        "train": batch(0),
        "grade": lambda out: read(out, gold(0)),
        "metric": metrics.metric("accuracy"),
        "combines": {name: combine_rule(name) for name in ("majority_vote", "weighted_vote")},
        "with_id": True,
        "answering": answering(),
    }
    return Problem(**(values | changes))


def execute(run_dir, resume=False, watch=None, **changes):
    experts = tj.population(jax.random.key(3), N, (0.1, 0.4))
    placement = place(PARAMS, block_size=1)
    settings = Settings(KS, placement, run_dir=run_dir, resume=resume, on_progress=watch)
    about = {
        "task": "numbers",
        "model": "four parameters",
        "options": {"num": N, "k": list(KS), "sigma": [0.1, 0.4]},
        "task_provenance": {"sampling": {"temperature": 0.7, "top_p": 1.0}},
    }
    return pipeline.execute(problem(**changes), experts, settings, about)


def content(run_dir):
    experts = json.loads((run_dir / "experts.json").read_text())
    results = json.loads((run_dir / "results.json").read_text())
    results.pop("timing"), results.pop("provenance")
    with np.load(run_dir / "items.npz") as items:
        return experts, results, {name: items[name].tobytes() for name in items.files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, and how many programs it compiled."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    before = kept_programs()
    found = execute(run_dir)
    return run_dir, found, len(kept_programs() - before)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They are the same as in every run, and drawing them takes longer than the runs here."""
    monkeypatch.setattr(figures, "draw", lambda record, results, folder: [])


def test_one_program_serves_train_test_control_and_samples(finished):
    assert finished[2] == 1


def test_every_answer_is_logged_and_equals_a_loop_over_experts(finished):
    run_dir, found, _ = finished
    record = run_record.load(run_dir)
    experts, K = found.population, max(KS)

    def slow(expert, data, draw=0):
        params = PARAMS if expert is None else tj.perturb(PARAMS, expert)
        return np.asarray(jax.jit(write)(params, data, np.int32(draw)))

    for i in (0, 17, N - 1):
        expected = read(slow(experts[i], batch(0))[None], gold(0))
        assert record.train_strings[i].tolist() == expected.answers[0].tolist()
        np.testing.assert_array_equal(record.train[i], expected.items[0])
        for name in ("strict", "flexible", "tokens"):
            np.testing.assert_array_equal(record.train_columns[name][i], expected.columns[name][0])
    base = read(slow(None, batch(0))[None], gold(0))
    assert record.base_train_strings.tolist() == base.answers[0].tolist()
    assert found.scores.answers.tolist() == record.train_strings.tolist()

    def on_test(expert):
        parts = [slow(expert, batch(1))[:6], slow(expert, batch(2))[:4]]
        wanted = np.concatenate([gold(1)[:6], gold(2)[:4]])
        return read(np.concatenate(parts)[None], wanted)

    table, items = record.targets, np.arange(10)
    assert table.dtype == np.float32 and record.answers.dtype == np.int32
    fresh = answers.random_control(experts, found.experts)
    assert not set(np.asarray(fresh.ids)) & set(np.asarray(experts.ids))
    np.testing.assert_array_equal(fresh.sigmas, found.experts.sigmas)
    for k in range(K):
        kept, control = on_test(found.experts[k]), on_test(fresh[k])
        assert record.texts[k].tolist() == kept.texts[0].tolist()
        assert record.strings[k].tolist() == kept.answers[0].tolist()
        outcomes = metrics.metric("accuracy").per_item(record.answers[k], table)
        np.testing.assert_array_equal(outcomes, kept.items[0])
        outcomes = metrics.metric("accuracy").per_item(record.random_answers[k], table)
        np.testing.assert_array_equal(outcomes, control.items[0])
        np.testing.assert_array_equal(record.columns["strict"][k], kept.columns["strict"][0])
        drawn = [slow(None, batch(1, 0.7), k)[:6], slow(None, batch(2, 0.7), k)[:4]]
        for item, number in zip(items, np.concatenate(drawn), strict=True):
            chosen = record.sample_answers[k, item]
            assert (chosen == -1) == (number % 5 == 0)
            if chosen >= 0:
                same = record.strings[record.answers[:, item] == chosen, item]
                assert (same == str(number)).all()
    assert len({row.tobytes() for row in record.sample_answers}) > 1
    assert record.sample_columns["tokens"].shape == (K, 10)
    base = on_test(None)
    assert record.base_texts.tolist() == base.texts[0].tolist()
    assert record.base_strings.tolist() == base.answers[0].tolist()


def test_interrupted_and_resumed_equals_uninterrupted(finished, tmp_path):
    calls, seen = [], []

    def grade(out):
        calls.append(len(out))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read(out, gold(0))

    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execute(run_dir, grade=grade)
    kept = sum(len(part) for _, part, _ in run_log.RunLog(run_dir, N).segments())
    assert 0 < kept < N
    execute(run_dir, resume=True, watch=seen.append)
    assert content(run_dir) == content(finished[0])
    read_now = [x for x in seen if x.unit == "answer"]
    assert read_now[0].done == 0 and read_now[-1].done == read_now[-1].total > 0
    seen = [x for x in seen if x.unit == "expert"]
    assert [seen[0].done, seen[-1].done, seen[-1].total] == [kept, N, N]
    assert [seen[0].tokens, seen[-1].tokens] == [0, 3 * B * (N - kept)]
    results = finished[1].table
    assert (seen[-1].best, seen[-1].base) == (results["best"]["train"], results["base"]["train"])


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (
            TypeError("'NoneType' object\nis not a string"),
            ScoreError,
            "grade raised TypeError: 'NoneType' object is not a string; what is scored is kept in "
            "the log",
        ),
        (DataError("gsm8k.jsonl, line 3: no answer"), DataError, "gsm8k.jsonl, line 3: no answer"),
    ],
    ids=["a fault", "a word of ours"],
)
def test_a_grade_that_raises(finished, tmp_path, raised, kind, says):
    calls = []

    def grade(out):
        calls.append(len(out))
        if len(calls) == 5:
            raise raised
        return read(out, gold(0))

    run_dir = tmp_path / "run"
    with pytest.raises(kind) as caught:
        execute(run_dir, grade=grade)
    assert str(caught.value) == says
    assert any(run_log.RunLog(run_dir, N).segments())
    if kind is DataError:
        assert caught.value is raised
        return

    def broken(piece, out):
        raise ZeroDivisionError

    with pytest.raises(ScoreError, match="grade raised ZeroDivisionError: no message; what is"):
        execute(run_dir, resume=True, answering=answering(read=broken))
    execute(run_dir, resume=True)
    assert content(run_dir) == content(finished[0])


def test_other_test_items_are_another_run(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    (run_dir / "results.json").unlink()
    for name in ("pieces", "sampled"):
        other = answering(**{name: (batch(1), batch(5))})
        with pytest.raises(RunError, match=r"different run .*fingerprints\.test was"):
            execute(run_dir, resume=True, answering=other)


def test_the_report_needs_no_model(finished, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    shutil.rmtree(run_dir / "log")
    monkeypatch.setattr(blocks, "expert_map", None)
    assert main(["report", str(run_dir)]) == 0
    assert content(run_dir) == content(finished[0])
    assert main(["report", str(run_dir), "--k", "2,3", "--vote", "weighted, majority"]) == 0
    results = json.loads((run_dir / "results.json").read_text())
    rows = [(row["combine"], row["k"]) for row in results["ensemble"]]
    assert rows == [(rule, k) for rule in ("weighted_vote", "majority_vote") for k in (2, 3)]
    assert [(row["combine"], row["k"]) for row in results["baselines"]] == [
        row for row in rows for _ in range(4)
    ]
    assert "ensemble of 2, weighted_vote" in capsys.readouterr().out
    assert main(["report", str(run_dir), "--vote", "mean"]) == 2
    assert "choose one of: majority_vote, weighted_vote" in capsys.readouterr().err
    assert main(["report", str(run_dir), "--vote", ","]) == 2
    assert "--vote ',' must be names of rules" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("answers", np.full((3, 10), 99), r"answers has class 99 of \d+"),
        ("strings.codes", np.full((3, 10), 99), "strings: a code is not -1 to"),
        ("texts.codes", np.zeros((2, 10), np.int32), r"texts is \[2, 10\] where 3×10 is expected"),
        ("train_columns.strict", np.zeros((3, 3)), r"train_columns.strict is \[3, 3\] where 48×6"),
        ("sample_answers", np.zeros((3, 9)), r"sample_answers is \[3, 9\] where \?×10 is"),
    ],
)
def test_damaged_answers_are_named(finished, tmp_path, monkeypatch, name, value, says):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir, ignore=shutil.ignore_patterns("log", "figures"))
    reported_runs.arrays(**{name: value})(run_dir / "items.npz")
    monkeypatch.setattr(digests, "check", lambda *_: None)  # would find it first
    with pytest.raises(RunError, match=f"items.npz is damaged .*{says}") as caught:
        run_record.load(run_dir)
    assert "\n" not in str(caught.value)


def test_logs_of_older_releases_have_no_answers():
    tree = {"values": np.ones(2, np.float32), "failed": np.zeros(2, bool)}
    scores = run_log._scores(tree)
    assert (scores.items, scores.answers, scores.columns) == (None, None, {})


class Typed:
    """Stands for the experts' program: what each expert says is written down."""

    def __init__(self, said):
        self.said, self.piece = said, None

    def on(self, piece):
        self.piece = piece
        return self

    def chunks(self, experts):
        for start in range(0, len(experts), 2):
            stop = min(start + 2, len(experts))
            yield Chunk(start, stop, self.said[start:stop])


def host(said, scores, classes=classes):
    """What is recorded of one piece on which two experts, base and control say `said`."""

    def read(piece, rows):
        shape = rows.shape
        wrong = np.array([[scores[text] for text in row] for row in rows], np.float32)
        return Graded(wrong, rows, {"tokens": np.ones(shape)}, rows)

    how = Answering(({},), (), read, classes, (said.shape[1],))
    experts = tj.population(jax.random.key(0), 9, 0.1, noise=tj.rademacher())
    return answers._read_on_host(how, experts, experts[[4, 2]], Typed(said))


def test_classes_and_outcomes_by_hand():
    said = np.array([["1/2", "x"], ["0.5", None], ["2", "x"], ["0.50", "y"], ["3", "bad"]], object)
    scores = {"1/2": 1, "0.5": 0.25, "0.50": 0, "2": 0, "3": 0, "x": 0, "y": 1, None: 0.5}

    def alike(found):
        assert found[4, 1] is None  # it broke down there
        halves = {"1/2": 0, "0.5": 0, "0.50": 0, "2": 1, "3": 2, "x": 0, "y": 1, None: 7}
        return np.vectorize(halves.get, otypes=[int])(found)

    found = host(said, scores | {"bad": np.nan}, alike)
    assert found["answers"].tolist() == [[0, 0], [0, -1]]
    assert found["base_answers"].tolist() == [1, 0]
    assert found["random_answers"].tolist() == [[0, 1], [2, -1]]
    # 1/2 was first in its class, so its outcome counts for 0.5 and 0.50 as well.
    np.testing.assert_array_equal(found["targets"], np.float32([[1, 0, 0], [0, 1, np.nan]]))
    assert found["texts"].tolist() == said[:2].tolist()
    assert found["base_texts"].tolist() == said[2].tolist()
    assert "sample_answers" not in found
    assert found["random_columns"]["tokens"].shape == (2, 2)
    nobody = host(np.full((5, 2), None), {None: 0})
    assert (nobody["answers"] == -1).all() and nobody["targets"].shape == (2, 1)
    with pytest.raises(ScoreError, match=r"classes returned float64\[5, 2\] for answers \[5, 2\]"):
        host(said, scores | {"bad": 0}, lambda found: np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grade": None}, "answering needs grade"),
        ({"targets": np.ones(3)}, "answering takes the place of predict_fn, test and targets"),
        ({"with_id": False}, r"takes ids \(with_id=True\)"),
        ({"answering": answering(sizes=(6,))}, "2 pieces and 1 sizes"),
        ({"answering": answering(sampled=(1,))}, "must be the same pieces"),
    ],
)
def test_parts_that_do_not_go_together(changes, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        execute(None, **changes)
    assert "\n" not in str(caught.value)


def test_a_piece_of_another_size_is_named():
    wrong = answering(read=lambda piece, out: read(out, gold(1)))
    with pytest.raises(ScoreError, match="read of piece 1 returned 6 items; return 4, with their"):
        execute(None, answering=wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answers": np.array([[1, 2, 3, 4, 5, 6]], object)}, "answers with int; each must be a"),
        ({"answers": np.array([["1"]], object)}, r"answers \[1, 1\] beside items \["),
        ({"columns": {"strict": np.zeros((1, 6))}}, r"columns\['strict'\] \[1, 6\] beside items"),
        ({"items": np.zeros((1, 6))}, r"grade returned float64\[1, 6\] for \d+ experts"),
    ],
)
def test_a_grade_of_the_wrong_shape_or_kind_is_refused(change, says):
    def grade(out):
        return (
            dataclasses.replace(read(out, gold(0)), **change)
            if len(out) > 1
            else read(out, gold(0))
        )

    with pytest.raises(ScoreError, match=says) as caught:
        execute(None, grade=grade)
    assert "\n" not in str(caught.value)


def test_a_grade_with_other_columns_is_refused():
    def grade(out):
        found = read(out, gold(0))
        names = ("tokens",) if len(out) == 1 or out.sum() % 2 else ("strict",)
        return dataclasses.replace(found, columns={name: found.columns[name] for name in names})

    with pytest.raises(ScoreError, match="recorded the columns .* for some experts and"):
        execute(None, grade=grade)
