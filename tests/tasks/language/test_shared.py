"""What all language-model tasks have in common: asking, grading, chat, fingerprints."""

import dataclasses
import gzip
import json
import shutil

import jax
import numpy as np
import pytest
from language_cases import CASES, COUNTDOWN, GSM8K, MATH, MBPP, OLYMPIAD, QA, ROC, USPTO
from language_tasks import asked, build, refused, said, write

from thicket_jax.cli import parsing
from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.runs import files
from thicket_jax.tasks.language import (
    gsm8k,
    math500,
    olympiadbench,
    qa,
    shared,
    stories,
)
from thicket_jax.text.prompts import open_tokenizer

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
        texts = [[f(i) for i in items] for f in (case.right, case.wrong)]
        graded = read(said(tokenizer, *texts))
        np.testing.assert_array_equal(graded.items, [[1, 1], [0, 0]])
        assert graded.texts.tolist() == texts
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


ASKING = {
    "gsm8k": (GSM8K, "question"),
    "math500": (MATH, "problem"),
    "mbpp": (MBPP, "text"),
    "olympiadbench": (OLYMPIAD, "question"),
    "qa": (QA, "question"),
}
asks = pytest.mark.parametrize(("case", "column"), ASKING.values(), ids=ASKING)
SHOT = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1 and 2?"},
    {"role": "assistant", "content": "3"},
]


def as_messages(case, column, i, before=()):
    """A row whose question is a conversation, its last content as a list of parts."""
    row = case.row(i)
    parts = [{"type": "text", "text": row[column]}]
    return {**row, column: [*before, {"role": "user", "content": parts}]}


@asks
def test_messages_go_through_the_chat_template(
    case, column, models, tokenizer, tmp_path, in_process
):
    path = tmp_path / "train.jsonl"
    data = str(write(path, [as_messages(case, column, i, SHOT) for i in range(4)]))
    task = build(case.module, models / "chat", data=data, **case.options)
    prompts = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    for prompt in prompts:
        assert prompt.startswith("Add. 1 and 2? 3 ") and prompt.endswith(" = ")
        assert "role" not in prompt and "content" not in prompt
    for i in range(4):  # what the task adds stands around the last message
        assert any(all(part in prompt for part in case.asked(i)) for prompt in prompts)
    with pytest.raises(DataError, match="list of messages, and there is no chat template in"):
        build(case.module, models / "plain", data=data)
    with pytest.raises(DataError, match="list of messages, and there is --no-chat"):
        build(case.module, models / "chat", data=data, chat=False)
    with pytest.raises(DataError, match="system message of its own; leave --system out"):
        build(case.module, models / "chat", data=data, system="Be brief.")


@asks
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (SHOT, "ends with a message of the assistant"),
        ([{"text": "1?"}], "neither text nor a list of messages"),
        ({"role": "user", "content": "1?"}, "is an object"),
        (json.dumps(SHOT), "a list of messages written as text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "has a part that is no text"),
    ],
    ids=["ends", "roles", "object", "text", "image"],
)
def test_what_is_no_conversation_is_refused_with_its_row(
    case, column, value, found, models, tmp_path, in_process
):
    rows = [{**case.row(i), column: value if i == 3 else case.row(i)[column]} for i in range(4)]
    train = str(write(tmp_path / "train.jsonl", rows[:2]))
    test = str(write(tmp_path / "other.jsonl", rows[2:]))
    with pytest.raises(DataError, match=rf"{found}.*; mend the row of .*other\.jsonl that begins"):
        build(case.module, models / "chat", data=train, test_data=test)


@pytest.mark.parametrize(
    ("case", "column", "value"),
    [
        (ROC, "sentence2", SHOT),
        (ROC, "sentence2", {"text": "She ate."}),
        (USPTO, "rxn_smiles", SHOT),
        (COUNTDOWN, "nums", [{"role": "user", "content": "1"}]),
        (GSM8K, "answer", ["#### 72"]),
        (MATH, "solution", [r"\boxed{72}"]),
        (OLYMPIAD, "final_answer", [["$1$"]]),
        (OLYMPIAD, "context", SHOT),
        (OLYMPIAD, "unit", ["min"]),
        (MBPP, "test_setup_code", [["import math"]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_list_or_object_is_taken_as_python_writes_it(
    case, column, value, models, tmp_path, in_process
):
    rows = [
        {**case.row(i), column: [*value, i] if isinstance(value, list) else value} for i in range(4)
    ]
    data = str(write(tmp_path / "train.jsonl", rows))
    with pytest.raises(DataError, match="mend the row of .*train.jsonl that begins"):
        build(case.module, models / "chat", data=data)


def altered(models, folder, config=None, generation=None, tokenizer=None):
    """A copy of a checkpoint with some settings changed."""
    shutil.copytree(models / "plain", folder)
    files_of = {"config": config, "generation_config": generation, "tokenizer_config": tokenizer}
    for name, changes in files_of.items():
        place = folder / f"{name}.json"
        before = json.loads(place.read_text()) if place.exists() else {}
        place.write_text(json.dumps(before | (changes or {})))
    return folder


def test_a_text_ends_at_the_end_tokens_of_config_generation_and_tokenizer(
    models, tmp_path, in_process, monkeypatch
):
    decoded = []
    monkeypatch.setattr(shared, "decoder", lambda config, *_, **__: decoded.append(config.eos_ids))
    model = altered(models, tmp_path / "m", {"eos_token_id": 5}, {"eos_token_id": [6, 7]})
    data = str(write(tmp_path / "all.jsonl", [QA.row(i) for i in range(2)]))
    task = build(qa, model, data=data, train_items=1, test_items=1)
    end = open_tokenizer(model).eos_ids[0]
    assert end == 1 and decoded == [(6, 7, 5, 1)]
    for token in (6, 7, 5, 1):
        tokens = np.array([[[[40, token, 41, 42]]]], np.int32)
        graded = task.problem.grade({"tokens": tokens, "finite": np.ones((1, 1, 1), bool)})
        assert graded.columns["tokens"].tolist() == [[2]] and len(graded.texts[0, 0]) == 1


def test_a_tokenizer_with_more_tokens_than_the_model(models, tmp_path, in_process, monkeypatch):
    rows = [{"question": "1?" * (i + 1), "answer": "2"} for i in range(3)]  # some are padded
    data = str(write(tmp_path / "all.jsonl", rows))
    opened = open_tokenizer(models / "plain")

    def task(**changes):
        tokenizer = dataclasses.replace(opened, **changes)
        monkeypatch.setattr(shared.prompts, "open_tokenizer", lambda folder: tokenizer)
        return build(qa, models / "plain", data=data, train_items=2, test_items=1)

    padded = task(size=300, pad_id=299).problem.train["tokens"]
    assert padded.max() < 258  # the model's tokens: what a row is padded with is one, too
    with pytest.raises(DataError, match="end token 258, but config.json has 258 tokens"):
        task(eos_ids=(1, 258))


def test_what_the_base_answers_is_a_hint_and_no_part_of_a_run(models, tmp_path, in_process):
    path = write(tmp_path / "data.jsonl", [QA.row(i) for i in range(6)])
    options = {"data": str(path), "train_items": 3, "test_items": 2, "rows": 2, "max_tokens": 4}

    def made(draft):
        task = build(qa, models / "plain", draft=draft, **options, **QA.options)
        return task.problem, files.fingerprint(task.problem.without_hints(task.problem.train))

    (plain, wanted), (ordered, same), (drafted, again) = map(made, ("none", "order", "base"))
    assert wanted == same == again
    out = jax.jit(plain.score_fn)(plain.params, plain.train, np.int32(0))
    tokens = np.asarray(out["tokens"])
    np.testing.assert_array_equal(drafted.train["draft"], tokens)
    assert ordered.train["expected"].shape == (2, 2)
    answering = drafted.answering
    for batch in (drafted.train, *answering.pieces, *answering.sampled):
        assert batch["draft"].shape == (2, 2, 4)
    taken = drafted.layout.take(drafted.train, np.array([2, 0]))
    np.testing.assert_array_equal(taken["draft"][0], tokens.reshape(4, 4)[[2, 0]])
