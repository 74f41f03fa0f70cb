"""The language-model tasks: what they ask, how they grade, whole runs, and bad input as typed."""

import csv
import dataclasses
import gzip
import json
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from language_models import SHARED, STORIES, make_checkpoint

from thicket_jax.cli import main, parsing
from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping import programs as compiled
from thicket_jax.runs import export, files
from thicket_jax.runs import record as run_record
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.tasks.language import (
    countdown,
    countdown_dataset,
    gsm8k,
    math500,
    mbpp,
    olympiadbench,
    qa,
    rocstories,
    shared,
    stories,
    uspto50k,
)
from thicket_jax.text.graders import code, find, numbers
from thicket_jax.text.prompts import open_tokenizer

pytest.importorskip("transformers")
N, K, B_TRAIN, B_TEST, T = 6, 2, 6, 8, 6
RUN = ["--num", N, "--k", "1,2", "--sigma", "0.1", "--train-items", B_TRAIN, "--max-tokens", T]
RUN += ["--test-items", B_TEST, "--block-size", 1, "--backend", "none", "--grade-workers", 1]


def thicket(*words):
    return main.main([str(word) for word in words])


def refused(capsys, *words):
    """Returns the one line that a command is refused with."""
    assert thicket(*words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("thicket: ") and captured.out == ""
    return lines[0].removeprefix("thicket: ")


class InProcess:
    """Graders without processes: texts graded on the spot, answers compared with each class."""

    def __init__(self, spec, items, *, workers=None, timeout=10.0):
        self.grader, self.items = find(spec), json.loads(json.dumps(items))

    def grade(self, pairs):
        return [self.grader(text, self.items[index]) for index, text in pairs]

    def classes(self, answers):
        same = self.grader.same or (lambda a, b: a == b)
        out = np.full(answers.shape, -1, np.int32)
        for b in range(answers.shape[1]):
            firsts = []
            for m, answer in enumerate(answers[:, b]):
                if answer is not None:
                    known = (c for c, first in enumerate(firsts) if same(first, answer))
                    out[m, b] = next(known, len(firsts))
                    if out[m, b] == len(firsts):
                        firsts.append(answer)
        return out

    def close(self):
        pass


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(shared, "Graders", InProcess)
    yield
    code._sandbox.cache_clear()  # which ends the programs' process


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Checkpoints that say digits: plain, and with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("plain", "chat"):
        says = "0123456789 #\n"
        make_checkpoint(folder / name, chat=name == "chat", says=says, max_position_embeddings=8192)
    return folder


@pytest.fixture(scope="module")
def tokenizer(models):
    return open_tokenizer(models / "plain")


def write(path, rows):
    """Writes rows in the format that the file's name says; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def build(module, model, **options):
    small = {"train_items": 2, "test_items": 2, **options}
    return module.build(module.Options(model=str(model), **small).resolved())


def asked(tokenizer, *batches):
    """The prompts of some batches, read back from their tokens."""
    rows = [(batch, c, r) for batch in batches for c, r in np.argwhere(batch["row"] >= 0)]
    return [tokenizer.decode(b["tokens"][c, r, b["start"][c, r] :]) for b, c, r in rows]


def said(tokenizer, *texts):
    """What the decoder would return had every one of n experts said its texts, [n][B]."""
    ids = [[[*tokenizer.encode(text), 1] for text in row] for row in texts]
    width = max(len(tokens) for row in ids for tokens in row)
    tokens = [[tokens + [1] * (width - len(tokens)) for tokens in row] for row in ids]
    found = np.asarray(tokens, np.int32)[:, None]
    return {"tokens": found, "finite": np.ones(found.shape[:3], bool)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A task's rows, what it must ask of each, and texts that are right and wrong."""

    module: Any
    row: Callable[[int], dict]
    asked: Callable[[int], list[str]]
    right: Callable[[int], str]
    wrong: Callable[[int], str]
    answer: Callable[[int], str | None]  # the canonical answer of the right text
    train: str = "train.jsonl"
    test: str = "test.jsonl"
    options: dict = dataclasses.field(default_factory=dict)


STORY = ["Ann woke up.", "She ate.", "She ran to school.", "She was late.", "She went to bed {}."]


def story(i):
    return [*STORY[:4], STORY[4].format(i)]


def order(i):
    return rocstories.shuffled({"sentences": story(i)})[1]


COUNTDOWN = Case(
    countdown,
    row=lambda i: {"nums": [i, 2, 4], "target": (i + 2) * 4},
    asked=lambda i: [f"{i}, 2, 4", f"make {(i + 2) * 4}.", "exactly once", "<answer>"],
    right=lambda i: f"So <answer>({i} + 2) * 4</answer>",
    wrong=lambda i: f"So <answer>{i} + 2 ** 4</answer>",
    answer=lambda i: f"valid:{(i + 2) * 4}",
)
GSM8K = Case(
    gsm8k,
    row=lambda i: {"question": f"What is {i} and 1,000?", "answer": f"It is\n#### 1,00{i}"},
    asked=lambda i: [f"What is {i} and 1,000?", "step by step", "####"],
    right=lambda i: f"$100{i}.\n#### $1,00{i}.00",
    wrong=lambda i: f"#### {i}",
    answer=lambda i: f"100{i}",
)
MATH = Case(
    math500,
    row=lambda i: {"problem": f"Halve {i}.", "solution": rf"It is \boxed{{\frac{{{i}}}{{2}}}}."},
    asked=lambda i: [f"Halve {i}.", r"\boxed{}", "step by step"],
    right=lambda i: rf"\boxed{{\dfrac{{{2 * i}}}{{4}}}}",
    wrong=lambda i: rf"\boxed{{{i + 1}}}",
    answer=lambda i: rf"\frac{{{2 * i}}}{{4}}",
)
OLYMPIAD = Case(
    olympiadbench,
    row=lambda i: {
        "context": "A train is late.",
        "question": f"How late, if it is {i}?",
        "final_answer": [f"${i}$", "$7$"],
        "is_multiple_answer": True,
        "unit": "min",
        "error": None,
        "modality": "Text-only",
    },
    asked=lambda i: ["A train is late.", f"it is {i}?", r"\boxed{}", "several", "in min"],
    right=lambda i: rf"\boxed{{7, {i}}}",
    wrong=lambda i: rf"\boxed{{{i}}}",
    answer=lambda i: f"7,{i}",
)
MBPP = Case(
    mbpp,
    row=lambda i: {
        "task_id": (601 if i < 2 else 11) + i,
        "text": f"Add {i}.",
        "code": "",
        "test_setup_code": "",
        "test_list": [f"assert plus(1) == {i + 1}", f"assert plus(0) == {i}"],
    },
    asked=lambda i: [f"Add {i}.", f"assert plus(1) == {i + 1}\nassert plus(0)", "```python"],
    right=lambda i: f"```python\ndef plus(x):\n    return x + {i}\n```",
    wrong=lambda i: "```python\ndef plus(x):\n    raise SystemExit(0)\n```",
    answer=lambda i: None,  # a digest of what the program does
    train="mbpp.jsonl",
    test="",
)
ROC = Case(
    rocstories,
    row=lambda i: {"storyid": i, **{f"sentence{j + 1}": s for j, s in enumerate(story(i))}},
    asked=lambda i: [*story(i), "A: ", "E: ", "<answer>"],
    right=lambda i: f"<answer>{', '.join(order(i))}</answer>",
    wrong=lambda i: f"<answer>{', '.join(reversed(order(i)))}</answer>",
    answer=lambda i: " ".join(order(i)),
    train="train.csv",
    test="test.csv",
)
USPTO = Case(
    uspto50k,
    row=lambda i: {"class": 1, "rxn_smiles": f"O.[CH3:{i + 1}]Br>[Na]>{'C' * (i + 1)}O"},
    asked=lambda i: [f"{'C' * (i + 1)}O.", "SMILES", "<answer>"],
    right=lambda i: "<answer>[CH3]Br.O</answer>",
    wrong=lambda i: "<answer>O</answer>",
    answer=lambda i: "O.[CH3]Br",
    train="train.csv",
    test="test.csv",
)
QA = Case(
    qa,
    row=lambda i: {"question": f"Number {i}?", "answer": f"n {i}"},
    asked=lambda i: [f"Number {i}?"],
    right=lambda i: f'"N  {i}."',
    wrong=lambda i: f"not n {i}",
    answer=lambda i: f"n {i}",
)
HF = {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"}
CASES = {
    "countdown jsonl": COUNTDOWN,
    "countdown json": dataclasses.replace(COUNTDOWN, train="train.json", test="test.json"),
    "countdown parquet": dataclasses.replace(COUNTDOWN, **HF),
    "gsm8k jsonl": GSM8K,
    "gsm8k parquet": dataclasses.replace(GSM8K, **HF),
    "math500 jsonl": MATH,
    "math500 parquet": dataclasses.replace(
        MATH, row=lambda i: {"question": f"Halve {i}.", "answer": f"{i / 2:g}"}, **HF
    ),
    "olympiadbench jsonl": OLYMPIAD,
    "olympiadbench parquet": dataclasses.replace(OLYMPIAD, **HF),
    "mbpp jsonl": MBPP,
    "mbpp parquet": dataclasses.replace(
        MBPP,
        row=lambda i: {
            "prompt": f"Add {i}.",
            "task_id": (601 if i < 2 else 11) + i,
            "test_imports": ["import math"],
            "test_list": [f"assert plus(1) == {i + 1}", f"assert plus(0) == math.floor({i})"],
        },
        train="full.parquet",
    ),
    "rocstories csv": ROC,
    "rocstories jsonl": dataclasses.replace(
        ROC, row=lambda i: {"sentences": story(i)}, train="train.jsonl", test="test.jsonl"
    ),
    "uspto50k csv": USPTO,
    "uspto50k jsonl": dataclasses.replace(
        USPTO,
        row=lambda i: {"product": f"{'C' * (i + 1)}O", "reactants": "O.[CH3:7]Br"},
        train="train.jsonl",
        test="test.jsonl",
    ),
    "qa jsonl": QA,
    "qa csv": dataclasses.replace(QA, train="train.csv", test="test.csv"),
    "qa parquet": dataclasses.replace(QA, **HF),
}


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
    found = asked(tokenizer, task.train, *task.answering.pieces)
    assert len(set(found)) == 4
    for i, prompt in enumerate(found):
        assert all(part in prompt for part in case.asked(i)), prompt
    for first, read in ((0, task.grade), (2, lambda x: task.answering.read(0, x))):
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


def test_countdown_generates_puzzles_and_keeps_the_parts_apart(models, monkeypatch, in_process):
    def puzzles(folder, train, test, seed):
        assert folder.name == "tfds"
        drawn = countdown_dataset.puzzles
        return drawn(train, seed, "train"), drawn(test, seed, "test")

    monkeypatch.setattr(countdown_dataset, "open_puzzles", puzzles)
    task = build(countdown, models / "plain", train_items=5, test_items=3)
    solved = [
        f"<answer>{row['solution']}</answer>" for row in puzzles(pathlib.Path("tfds"), 5, 3, 0)[1]
    ]
    graded = task.answering.read(0, said(open_tokenizer(models / "plain"), solved))
    assert graded.items.tolist() == [[1, 1, 1]]
    assert task.provenance["data"]["split"] == "generated with seed 0"


def test_stories_deals_out_its_prompts_without_overlap(models, tokenizer, in_process):
    task = build(stories, models / "plain", train_items=300, test_items=450)
    found = asked(tokenizer, task.train, *task.answering.pieces)
    assert len(set(found)) == len(found) == 750
    hero = re.search(r"named (\w+)\. One day, \1$", found[0])[1]
    graded = task.grade(said(tokenizer, [f" saw {hero}'s box."] + [""] * 299))
    assert graded.items[0, 0] == 1 and graded.answers[0, 0] == "named"
    assert not graded.items[0, 1:].any() and set(graded.answers[0, 1:]) == {"not named"}
    # More of one part does not change the other.
    more = build(stories, models / "plain", train_items=301, test_items=2)
    assert asked(tokenizer, more.train)[:300] == found[:300]
    with pytest.raises(DataError, match=r"stories has 750 prompts, not 500 .* and 251 "):
        build(stories, models / "plain", train_items=500, test_items=251)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the model stories260K is not at {STORIES}")
def test_stories_on_the_real_model_asks_what_it_was_trained_on(in_process):
    task = build(stories, STORIES, test_items=256)
    found = asked(open_tokenizer(STORIES), task.train)
    assert all(text.startswith("Once upon a time, there was a little ") for text in found)
    assert task.train["tokens"].shape == task.answering.pieces[0]["tokens"].shape
    assert [(piece["row"] >= 0).sum() for piece in task.answering.pieces[:2]] == [2, 2]
    assert sum(task.answering.sizes) == 256 and not task.provenance["chat_template"]


@pytest.mark.parametrize("reward", ["exact", "position", "adjacency"])
def test_rocstories_selects_by_the_reward_and_tests_by_the_exact_order(
    reward, models, tokenizer, tmp_path, in_process
):
    write(tmp_path / "train.csv", [ROC.row(i) for i in range(3)])
    write(tmp_path / "test.csv", [ROC.row(i) for i in range(2, 4)])
    task = build(rocstories, models / "plain", data=str(tmp_path), reward=reward)
    swapped = [[*order(i)[:3], order(i)[4], order(i)[3]] for i in range(4)]
    texts = [f"<answer>{', '.join(letters)}</answer>" for letters in swapped]
    expected = {"exact": 0.0, "position": 0.6, "adjacency": 0.5}
    train = task.grade(said(tokenizer, texts[:2]))
    np.testing.assert_allclose(train.items, [[expected[reward]] * 2])
    test = task.answering.read(0, said(tokenizer, texts[2:]))
    assert test.items.tolist() == [[0, 0]]
    for graded in (train, test):
        for name, value in expected.items():
            np.testing.assert_allclose(graded.columns[name], [[value] * 2])
    assert any(reward in note for note in task.notes) == (reward != "exact")
    assert any("1 rows of train.csv are also test items" in note for note in task.notes)


def test_two_stories_that_begin_alike_are_two_items(models, tokenizer, tmp_path, in_process):
    write(tmp_path / "all.csv", [ROC.row(i) for i in range(4)])
    task = build(rocstories, models / "plain", data=str(tmp_path / "all.csv"))
    assert len(set(asked(tokenizer, task.train, *task.answering.pieces))) == 4


def test_mbpp_selects_and_tests_on_the_published_ranges(models, tokenizer, tmp_path, in_process):
    numbers = [1, 10, 11, 510, 511, 600, 601, 974]
    rows = [{**MBPP.row(0), "text": f"Task {n}.", "task_id": n} for n in numbers]
    task = build(mbpp, models / "plain", data=str(write(tmp_path / "mbpp.jsonl", rows)))
    found = [text.split(".")[0] for text in asked(tokenizer, task.train, *task.answering.pieces)]
    assert found == ["Task 601", "Task 974", "Task 11", "Task 510"]
    assert task.provenance["data"]["split"] == "ranges" and not task.notes
    part = [dict(row, task_id=11 + i, text=f"Task {i}.") for i, row in enumerate(rows)]
    test_part = str(write(tmp_path / "part.jsonl", part))
    with pytest.raises(DataError, match="published test set by its items' numbers.*--allow-test"):
        build(mbpp, models / "plain", data=test_part)
    allowed = build(mbpp, models / "plain", data=test_part, allow_test_selection=True)
    assert "experts were selected on items of part.jsonl, a published test set" in allowed.notes[0]


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


def real(name):
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return str(path)


def test_the_authors_gsm8k(models, tokenizer, in_process):
    task = build(gsm8k, models / "plain", data=real("gsm8k"), train_items=200, test_items=100)
    found = asked(tokenizer, task.train, *task.answering.pieces)
    assert len(set(found)) == 300 and found[0].startswith("Natalia sold clips to 48 of her friends")
    right = task.grade(said(tokenizer, ["#### 72."] + [""] * 199))
    assert right.items[0, 0] == 1 and right.items.sum() == 1


def test_the_authors_math500(models, tokenizer, in_process):
    pytest.importorskip("math_verify")
    data = real("math500")
    with pytest.raises(DataError, match="published test set"):
        build(math500, models / "plain", data=data)
    task = build(
        math500,
        models / "plain",
        data=data,
        train_items=20,
        test_items=480,
        allow_test_selection=True,
    )
    found = asked(tokenizer, task.train, *task.answering.pieces)
    assert len(set(found)) == len(found) == 500
    polar = next(i for i, text in enumerate(found) if text.startswith("Convert the point $(0,3)$"))
    texts = [""] * 500
    texts[polar] = r"\boxed{(3, \frac{\pi}{2})}"
    graded = [task.grade(said(tokenizer, texts[:20]))] if polar < 20 else []
    first = 20
    for number, size in enumerate(task.answering.sizes):
        if first <= polar < first + size:
            graded += [task.answering.read(number, said(tokenizer, texts[first : first + size]))]
        first += size
    assert first == 500 and graded[0].items.sum() == 1


def test_the_authors_mbpp(models, tokenizer, in_process):
    path = f"{real('mbpp')}/mbpp.jsonl"
    task = build(mbpp, models / "plain", data=path, train_items=371, test_items=500)
    found = asked(tokenizer, task.train, *task.answering.pieces)
    assert len(found) == 871 and task.provenance["data"]["split"] == "ranges"
    assert found[371].startswith("Write a python function to remove first and last occurrence of")
    size = task.answering.sizes[0]
    program = "def remove_Occ(s, ch):\n    s = s.replace(ch, '', 1)[::-1]\n"
    program += "    return s.replace(ch, '', 1)[::-1]\n"
    texts = [f"```python\n{program}```"] + [""] * (size - 1)
    graded = task.answering.read(0, said(tokenizer, texts))
    assert graded.items[0, 0] == 1 and graded.items.sum() == 1


OWN = """
from thicket_jax.text.grading.grading import Outcome

def grade(text, item):
    digits = sum(map(str.isdigit, text))
    return Outcome(text.strip() or None, len(set(text)) / 4, {"digits": digits})

def share(text, item):
    return item["Frage"], len(text) / item["answer"]
"""


@pytest.mark.parametrize(
    ("grader", "row", "right", "wrong", "answer"),
    [
        ("exact", {"answer": ["2", "two"]}, "Two.", "twofold", "two"),
        ("exact", {"answer": 2}, " 2", "12", "2"),
        ("numeric", {"answer": 1234.0, "error": "none"}, "It is $1,234.", "1,23", "1234"),
        ("numeric", {"answer": "so\n#### 72"}, "#### 72.00", "#### 7", "72"),
        ("math", {"answer": r"\frac12"}, "It is $0.5$.", r"\boxed{2}", r"\frac{1}{2}"),
        ("contains-word", {"answer": "man"}, "a man!", "a woman", "a man"),
        (
            "contains-word",
            {"answer": "red", "choices": ["red", "infrared"]},
            "not infrared but red",
            "infrared",
            "red",
        ),
    ],
)
def test_qa_takes_a_grader_by_name(
    grader, row, right, wrong, answer, models, tokenizer, tmp_path, in_process
):
    if grader == "math":
        pytest.importorskip("math_verify")
    rows = [{"question": f"{i}?", **row} for i in range(2)]
    more = {"choices": "choices", "prompt": "{question} ({choices})"} if "choices" in row else {}
    data = str(write(tmp_path / "all.jsonl", rows))
    task = build(
        qa, models / "plain", data=data, grader=grader, train_items=1, test_items=1, **more
    )
    graded = task.grade(said(tokenizer, [right], [wrong]))
    assert graded.items.tolist() == [[1], [0]]
    if answer is not None:
        assert graded.answers[0, 0] == answer
    if more:
        assert "? (red, infrared)" in asked(tokenizer, task.train)[0]


def test_qa_takes_own_columns_an_own_grader_and_an_own_prompt(
    models, tokenizer, tmp_path, monkeypatch, in_process
):
    (tmp_path / "my_grades.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    rows = [{"Frage": f"Wie {i}?", "Wert": 4 + i, "Wo": "Ulm"} for i in range(4)]
    write(tmp_path / "all.json", rows)
    for grader in ("my_grades:share", "my_grades.py:share", str(tmp_path / "my_grades.py:share")):
        task = build(
            qa,
            models / "plain",
            data="all.json",
            question="Frage",
            answer="Wert",
            grader=grader,
            prompt="{Wo}, {question:>8} {{}}",
        )
        found = asked(tokenizer, task.train, *task.answering.pieces)
        assert sorted(found) == [f"Ulm, {'Wie ' + str(i) + '?':>8} {{}}" for i in range(4)]
        graded = task.grade(said(tokenizer, ["abcd", "ab"]))
        wert = [4 + int(text[-5]) for text in found[:2]]
        np.testing.assert_allclose(graded.items, [[4 / wert[0], 2 / wert[1]]])
        assert graded.answers[0].tolist() == [f"Wie {w - 4}?" for w in wert]
    assert task.provenance["grader"] == str(tmp_path / "my_grades.py:share")


def test_the_chat_template_is_applied_where_there_is_one(models, tokenizer, tmp_path, in_process):
    data = str(write(tmp_path / "all.jsonl", [QA.row(i) for i in range(4)]))

    def prompts(model, **options):
        task = build(qa, models / model, data=data, **options)
        found = sorted(asked(tokenizer, task.train, *task.answering.pieces))
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
        leaves = [task.train, *task.answering.pieces, *task.answering.sampled]
        assert all((x["items"].dtype, x["items"].shape) == (np.uint8, (32,)) for x in leaves)
        return files.fingerprint(task.train), files.fingerprint(task.answering.pieces)

    before = prints(rows)
    assert prints(rows) == before
    changed = [*rows[:3], {**rows[3], "answer": "n 4"}]
    for other in (prints(changed), prints(rows, grader="contains-word")):
        assert other[0] != before[0] and other[1] != before[1]


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
    mapper = dv.mapper(None, "none", task.params)
    programs = len(compiled._PROGRAMS)
    scorer = Scorer(
        task.score_fn,
        task.params,
        experts,
        task.train,
        mapper=mapper,
        grade=task.grade,
        block_size=1,
        with_id=True,
    )
    chunks = list(scorer.map.chunks(experts))
    assert len(compiled._PROGRAMS) == programs  # the run's own program
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


def test_a_run_of_stories(run, models, tmp_path, in_process):
    programs = len(compiled._PROGRAMS)
    width = run_record.load(run).config["task_provenance"]["prompt_tokens"]
    words = ["--model", models / "chat", "--system", "x" * (width - 88), "--out", tmp_path / "run"]
    assert thicket("run", "stories", *words, *RUN) == 0
    assert len(compiled._PROGRAMS) == programs  # equal shapes are one program
    record = run_record.load(tmp_path / "run")
    assert record.config["task_provenance"]["prompt_tokens"] == width
    assert record.train.shape == (N, B_TRAIN) and record.texts.shape == (K, B_TEST)
    assert set(record.train_strings.flat) == {"not named"} and not record.train.any()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "gains" not in results and len(results["baselines"]) == 16
    assert "Format and reasoning" not in (tmp_path / "run" / "report.md").read_text()


def test_a_run_in_bfloat16_that_selects_on_a_test_set_says_so(models, data, tmp_path, in_process):
    words = ["--model", models / "plain", "--precision", "bfloat16", "--out", tmp_path / "run"]
    words += ["--data", data / "test.jsonl", "--allow-test-selection", *RUN, "--where", "lm_head"]
    assert thicket("run", "gsm8k", *words, "--train-items", 4, "--test-items", 4) == 0
    record = run_record.load(tmp_path / "run")
    assert "bfloat16" in record.config["model"] and record.train.shape == (N, 4)
    assert len({text for row in record.texts for text in row}) > 1
    for name in ("report.md", "report.html"):
        text = (tmp_path / "run" / name).read_text()
        assert "experts were selected on items of test.jsonl, a published test set" in text
        assert "split at random without overlap" in text


def test_a_grader_that_raises_stops_the_run_and_once_mended_it_goes_on(
    models, tmp_path, capsys, monkeypatch
):
    rows = [{"question": f"Number {i}?", "answer": i} for i in range(B_TRAIN + B_TEST)]
    write(tmp_path / "all.csv", rows)
    own = tmp_path / "own.py"
    own.write_text("def grade(text, item):\n    raise ValueError('no\\nway')\n")
    words = ["--model", models / "plain", "--data", tmp_path / "all.csv", "--out", tmp_path / "run"]
    words += ["--grader", f"{own}:grade", "--prompt", "{question:>200}", "--quiet"]
    line = refused(capsys, "run", "qa", *words, *RUN)
    assert f"grader {own}:grade raised ValueError: no way (own.py:2) on item 0" in line
    assert "mend the grader or the item; items are numbered from 0, the 6 training items" in line
    assert line.endswith("what is scored is kept in the log")
    own.write_text(OWN)
    monkeypatch.setattr(shared, "Graders", InProcess)
    assert thicket("resume", tmp_path / "run", "--backend", "none", "--quiet") == 0
    record = run_record.load(tmp_path / "run")
    assert set(record.train_columns) == {"digits", "tokens"} and len(set(record.scores)) > 1
    assert "weighted_vote" in capsys.readouterr().out


@pytest.fixture(scope="module")
def broken(models, tmp_path_factory):
    """Model folders, and data files, each with one thing wrong."""
    folder = tmp_path_factory.mktemp("broken")

    def spoiled(name, spoil):
        spoil(shutil.copytree(models / "plain", folder / name))

    def pickled(at):
        (at / "model.safetensors").rename(at / "pytorch_model.bin")

    def sharded(at):
        index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
        index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
        (at / "model.safetensors").rename(at / "model-00001-of-00002.safetensors")
        (at / "model.safetensors.index.json").write_text(json.dumps(index))

    def truncated(at):
        whole = (at / "model.safetensors").read_bytes()
        (at / "model.safetensors").write_bytes(whole[:-100])

    def short(at):
        config = json.loads((at / "config.json").read_text())
        (at / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))

    spoiled("no_config", lambda at: (at / "config.json").unlink())
    spoiled("no_tokenizer", lambda at: (at / "tokenizer.json").unlink())
    spoiled("pickle", pickled)
    spoiled("shard", sharded)
    spoiled("truncated", truncated)
    spoiled("short", short)
    good = [{"question": f"Number {i}?", "answer": str(i)} for i in range(8)]
    write(folder / "good.jsonl", good)
    write(folder / "lacks.jsonl", [*good[:2], {"question": "Number 9?"}])
    write(folder / "words.jsonl", [{**row, "answer": "many"} for row in good])
    write(folder / "choices.csv", [{**row, "choices": "1, 2"} for row in good])
    write(folder / "foreign.jsonl", [{**row, "choices": ["x", "y"]} for row in good])
    (folder / "no_json.jsonl").write_text('{"question": "1?", "answer": "1"}\nquestion, answer\n')
    write(
        folder / "mbpp.jsonl",
        [{**MBPP.row(i), "test_list": "assert plus(1) == 1"} for i in range(4)],
    )
    write(
        folder / "tests.jsonl",
        [{**MBPP.row(i), "test_list": ["assert plus(1 = 1"]} for i in range(4)],
    )
    write(folder / "numbers.jsonl", [{"numbers": "1 2", "target": i} for i in range(4)])
    write(folder / "solution.jsonl", [{"problem": f"{i}?", "solution": "1"} for i in range(4)])
    smiles = [{"product": f"{'C' * i}O", "reactants": "water"} for i in range(1, 5)]
    write(folder / "smiles.jsonl", smiles)
    write(folder / "story.jsonl", [{"sentences": [f"Only one, {i}."]} for i in range(4)])
    (folder / "own.py").write_text(OWN)
    (folder / "raises.py").write_text("import nothing_like_it\n")
    return folder


QA_GOOD = ["qa", "--model", "{plain}", "--data", "{good}"]
BAD = {
    "no model": (["gsm8k", "--data", "{good}"], "--model is missing; give the folder"),
    "no data": (["gsm8k", "--model", "{plain}"], "--data is missing; give a file (JSONL, JSON"),
    "a name, not a folder": (
        ["qa", "--model", "Qwen/Qwen2.5-0.5B", "--data", "{good}"],
        "Qwen/Qwen2.5-0.5B/config.json is not there; --model takes the folder",
    ),
    "no config": (["stories", "--model", "{no_config}"], "no_config/config.json is not there"),
    "no tokenizer": (["stories", "--model", "{no_tokenizer}"], "no_tokenizer has no tokenizer"),
    "a pickle": (["stories", "--model", "{pickle}"], "only pytorch_model.bin, which is refused"),
    "a shard missing": (
        ["stories", "--model", "{shard}"],
        "model-00002-of-00002.safetensors",
    ),
    "truncated": (["stories", "--model", "{truncated}"], "model.safetensors is truncated"),
    "too long": (["stories", "--model", "{short}"], "is over the model's 64 positions (4 of 4"),
    "no template": ([*QA_GOOD, "--chat"], "--chat: the tokenizer in"),
    "no such file": ([*QA_GOOD[:-1], "nowhere.jsonl"], "nowhere.jsonl cannot be read: No such"),
    "a column missing": ([*QA_GOOD[:-1], "{lacks}"], "lacks.jsonl line 3 has no 'answer', only"),
    "no JSON": ([*QA_GOOD[:-1], "{no_json}"], "no_json.jsonl line 2: not JSON"),
    "another task's": (
        ["countdown", "--model", "{plain}", "--data", "{good}"],
        "good.jsonl line 1 has no 'numbers' or 'nums', only question, answer",
    ),
    "not the story's": (
        ["rocstories", "--model", "{plain}", "--data", "{good}"],
        "good.jsonl line 1 has no 'sentence1' or 'sentences'",
    ),
    "own column": ([*QA_GOOD, "--answer", "label"], "good.jsonl line 1 has no 'label', only"),
    "no number": (
        ["gsm8k", "--model", "{plain}", "--data", "{words}"],
        "its answer 'many' does not end with a number after ####; mend the row of",
    ),
    "no number in qa": (
        ["qa", "--model", "{plain}", "--data", "{words}", "--grader", "numeric"],
        "its answer 'many' is no number",
    ),
    "text for numbers": (
        ["countdown", "--model", "{plain}", "--data", "{numbers}"],
        "numbers='1 2' must be a list of whole numbers",
    ),
    "text for tests": (
        ["mbpp", "--model", "{plain}", "--data", "{mbpp}", "--allow-test-selection"],
        "must be a list of statements of Python",
    ),
    "tests that are no Python": (
        ["mbpp", "--model", "{plain}", "--data", "{tests}", "--allow-test-selection"],
        "its test 'assert plus(1 = 1' is no Python",
    ),
    "no boxed answer": (
        ["math500", "--model", "{plain}", "--data", "{solution}"],
        "it has no answer, and none in \\boxed{} in its solution",
    ),
    "no SMILES": (
        ["uspto50k", "--model", "{plain}", "--data", "{smiles}"],
        "'water' is no SMILES string",
    ),
    "one sentence": (
        ["rocstories", "--model", "{plain}", "--data", "{story}"],
        "it has 1 sentences; 2 to 26 can be put in order",
    ),
    "too few items": ([*QA_GOOD, "--test-items", 7], "8 different items, and 2 training + 7 test"),
    "stories takes no data": (
        ["stories", "--model", "{plain}", "--data", "{good}"],
        "stories makes its own prompts; leave out --data",
    ),
    "no tokens": ([*QA_GOOD, "--max-tokens", 0], "max_tokens=0 must be a whole number"),
    "no items": ([*QA_GOOD, "--train-items", 0], "train_items=0 must be a whole number"),
    "k above num": ([*QA_GOOD, "--k", 5, "--num", 2], "k=5 is larger than num=2"),
    "extraction": (
        ["gsm8k", "--model", "{plain}", "--data", "{good}", "--extraction", "loose"],
        "extraction='loose' is unknown; choose one of: strict, flexible",
    ),
    "reward": (
        ["rocstories", "--model", "{plain}", "--data", "{good}", "--reward", "any"],
        "reward='any' is unknown; choose one of: exact, position, adjacency",
    ),
    "precision": ([*QA_GOOD, "--precision", "int8"], "precision='int8' is unknown; choose one of"),
    "temperature": ([*QA_GOOD, "--sample-temperature", 0], "sample_temperature=0 must be positive"),
    "top p": ([*QA_GOOD, "--sample-top-p", 1.5], "sample_top_p=1.5 must be above 0"),
    "grade seconds": ([*QA_GOOD, "--grade-seconds", "nan"], "grade_seconds=nan must be positive"),
    "workers": ([*QA_GOOD, "--grade-workers=-1"], "grade_workers=-1 must be 0 or more"),
    "rows": ([*QA_GOOD, "--rows=-1"], "rows=-1 must be 0 or more"),
    "memory": (
        ["mbpp", "--model", "{plain}", "--data", "{mbpp}", "--program-megabytes", 8],
        "program_megabytes=8 at least 64",
    ),
    "unknown grader": ([*QA_GOOD, "--grader", "rouge"], "grader='rouge' is unknown; choose one of"),
    "no grader module": (
        [*QA_GOOD, "--grader", "no_such_module:grade"],
        "there is no module no_such_module",
    ),
    "no grader file": ([*QA_GOOD, "--grader", "no_such.py:grade"], "there is no file"),
    "no grader function": ([*QA_GOOD, "--grader", "{own}:score"], "it has: grade, share"),
    "a grader that cannot be imported": (
        [*QA_GOOD, "--grader", "{raises}:grade"],
        "raised ModuleNotFoundError: No module named 'nothing_like_it'",
    ),
    "extraction without a reader": (
        [*QA_GOOD, "--extraction", "strict"],
        "--extraction strict is read by numeric and math, not by exact",
    ),
    "choices without a reader": (
        [*QA_GOOD, "--choices", "question"],
        "--choices is read by the grader contains-word, not by exact",
    ),
    "choices in a CSV": (
        ["qa", "--model", "{plain}", "--data", "{choices}", "--grader", "contains-word"]
        + ["--choices", "choices"],
        "its choices '1, 2' must be a list",
    ),
    "an answer that is no choice": (
        ["qa", "--model", "{plain}", "--data", "{foreign}", "--grader", "contains-word"]
        + ["--choices", "choices"],
        "is none of its choices",
    ),
    "prompt of an unknown column": (
        [*QA_GOOD, "--prompt", "{context} {question}"],
        "--prompt '{context} {question}' cannot be filled in (KeyError: 'context'); columns are: "
        "question, answer",
    ),
    "prompt that does not close": ([*QA_GOOD, "--prompt", "{question"], "cannot be filled in"),
    "prompt of an attribute": ([*QA_GOOD, "--prompt", "{question.x}"], "cannot be filled in"),
    "empty prompt": ([*QA_GOOD, "--prompt", ""], "item 0 (from 0) has an empty prompt"),
}


@pytest.mark.parametrize(("words", "found"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    words, found, models, broken, tmp_path, capsys, monkeypatch
):
    started = []
    monkeypatch.setattr(shared, "Graders", lambda *args, **kwargs: started.append(args))
    places = {path.stem: str(path) for path in broken.iterdir()} | {"plain": str(models / "plain")}
    small = [] if "--k" in words else ["--k", 1]
    small += ["--num", 2, "--train-items", 2, "--test-items", 2, "--max-tokens", 4, "--quiet"]
    given = [re.sub(r"^\{(\w+)\}", lambda m: places.get(m[1], m[0]), str(word)) for word in words]
    out = tmp_path / "out" / "run"
    line = refused(capsys, "run", given[0], *small, *given[1:], "--out", out)
    assert found in line
    assert not out.parent.exists() and not started
