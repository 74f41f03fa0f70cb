"""What all language-model tasks have in common: asking, grading, chat, fingerprints."""

import gzip

import numpy as np
import pytest
from language_cases import CASES, GSM8K, MATH, OLYMPIAD, QA
from language_tasks import asked, build, refused, said, write

from thicket_jax.cli import parsing
from thicket_jax.errors import ArgumentError
from thicket_jax.runs import files
from thicket_jax.tasks.language import (
    gsm8k,
    math500,
    olympiadbench,
    qa,
    stories,
)

pytest.importorskip("transformers")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_task_asks_and_grades_in_every_format(case, models, tokenizer, tmp_path, in_process):
    if case.module in (math500, olympiadbench):
        pytest.importorskip("math_verify")
    rows = [case.row(i) for i in range(4)]
    if case.test:
        write(tmp_path / "data" / case.train, rows[:2])
        write(tmp_path / "data" / case.test, rows[2:])
    else:
        write(tmp_path / "data" / case.train, rows)
    task = build(case.module, models / "plain", data=str(tmp_path / "data"), **case.options)
    found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    assert len(set(found)) == 4
    for i, prompt in enumerate(found):
        assert all(part in prompt for part in case.asked(i)), prompt
    for first, read in ((0, task.problem.grade), (2, lambda x: task.problem.answering.read(0, x))):
        items = (first, first + 1)
        graded = read(said(tokenizer, map(case.right, items), map(case.wrong, items)))
        np.testing.assert_array_equal(graded.items, [[1, 1], [0, 0]])
        assert graded.texts.tolist() == [[f(i) for i in items] for f in (case.right, case.wrong)]
        if case.answer(0) is not None:
            assert graded.answers[0].tolist() == [case.answer(i) for i in items]
        assert (graded.answers[0] != graded.answers[1]).all()
        lengths = [[len(tokenizer.encode(text)) + 1 for text in row] for row in graded.texts]
        np.testing.assert_array_equal(graded.columns["tokens"], lengths)
    assert task.provenance["data"]["files"][0]["name"] == case.train.split("/")[-1]


@pytest.mark.parametrize(
    ("module", "name", "why"),
    [
        (gsm8k, "test.jsonl", "by its name"),
        (math500, "math500.jsonl", "and has no training part"),
        (math500, "test.jsonl", "by its name"),
        (olympiadbench, "OE_TO_maths_en_COMP.json", "and has no training part"),
        (olympiadbench, "training_0.jsonl.gz", "and has no training part"),
    ],
)
def test_selection_on_a_published_test_set_must_be_asked_for(
    module, name, why, models, tmp_path, capsys, in_process
):
    case = {gsm8k: GSM8K, math500: MATH, olympiadbench: OLYMPIAD}[module]
    rows = [case.row(i) for i in range(4)]
    path = write(tmp_path / name.removesuffix(".gz"), rows)
    if name.endswith(".gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress((tmp_path / name.removesuffix(".gz")).read_bytes()))
    words = ["run", module.__name__.split(".")[-1], "--model", models / "plain", "--data", path]
    words += ["--quiet", "--out", tmp_path / "run", "--train-items", 2, "--test-items", 2]
    line = refused(capsys, *words)
    assert f"{name} is a published test set {why}, and experts would be selected" in line
    assert "--allow-test-selection" in line and not (tmp_path / "run").exists()
    pytest.importorskip("math_verify")
    task = build(module, models / "plain", data=str(path), allow_test_selection=True)
    assert f"experts were selected on items of {name}, a published test set {why}" in task.notes


def test_the_chat_template_is_applied_where_there_is_one(models, tokenizer, tmp_path, in_process):
    data = str(write(tmp_path / "all.jsonl", [QA.row(i) for i in range(4)]))

    def prompts(model, **options):
        task = build(qa, models / model, data=data, **options)
        found = sorted(asked(tokenizer, task.problem.train, *task.problem.answering.pieces))
        return found[0], task.provenance["chat_template"]

    assert prompts("plain") == ("Number 0?", False)
    assert prompts("plain", system="Be brief.") == ("Be brief.\n\nNumber 0?", False)
    assert prompts("chat") == ("Number 0? = ", True)
    assert prompts("chat", system="Be brief.") == ("Be brief. Number 0? = ", True)
    assert prompts("chat", chat=True) == prompts("chat")
    assert prompts("chat", chat=False) == prompts("plain")
    with pytest.raises(ArgumentError, match="--chat: .* has no chat template"):
        prompts("plain", chat=True)
    # A story is continued, not answered.
    assert not build(stories, models / "chat").provenance["chat_template"]


def test_chat_is_a_flag_of_three_states():
    for words, chat in ((["--chat"], True), (["--no-chat"], False), ([], None)):
        assert parsing.parse(qa.Options, words, "thicket run qa").chat is chat


def test_right_answers_are_part_of_a_runs_fingerprint(models, tmp_path, in_process):
    rows = [QA.row(i) for i in range(4)]

    def prints(rows, **options):
        task = build(qa, models / "plain", data=str(write(tmp_path / "a.jsonl", rows)), **options)
        leaves = [
            task.problem.train,
            *task.problem.answering.pieces,
            *task.problem.answering.sampled,
        ]
        assert all((x["items"].dtype, x["items"].shape) == (np.uint8, (32,)) for x in leaves)
        return files.fingerprint(task.problem.train), files.fingerprint(
            task.problem.answering.pieces
        )

    before = prints(rows)
    assert prints(rows) == before
    changed = [*rows[:3], {**rows[3], "answer": "n 4"}]
    for other in (prints(changed), prints(rows, grader="contains-word")):
        assert other[0] != before[0] and other[1] != before[1]
