"""MBPP: the published ranges, and the authors' data."""

import pytest
from language_cases import MBPP
from language_tasks import asked, build, said, write
from shared_data import real

from thicket_jax.errors import DataError
from thicket_jax.tasks.language import mbpp

pytest.importorskip("transformers")


def test_mbpp_selects_and_tests_on_the_published_ranges(models, tokenizer, tmp_path, in_process):
    numbers = [1, 10, 11, 510, 511, 600, 601, 974]
    rows = [{**MBPP.row(0), "text": f"Task {n}.", "task_id": n} for n in numbers]
    task = build(mbpp, models / "plain", data=str(write(tmp_path / "mbpp.jsonl", rows)))
    found = [
        text.split(".")[0]
        for text in asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    ]
    assert found == ["Task 601", "Task 974", "Task 11", "Task 510"]
    assert task.provenance["data"]["split"] == "ranges" and not task.notes
    part = [dict(row, task_id=11 + i, text=f"Task {i}.") for i, row in enumerate(rows)]
    test_part = str(write(tmp_path / "part.jsonl", part))
    with pytest.raises(DataError, match="published test set by its items' numbers.*--allow-test"):
        build(mbpp, models / "plain", data=test_part)
    allowed = build(mbpp, models / "plain", data=test_part, allow_test_selection=True)
    assert "experts were selected on items of part.jsonl, a published test set" in allowed.notes[0]


def test_the_authors_mbpp(models, tokenizer, in_process):
    path = f"{real('mbpp')}/mbpp.jsonl"
    task = build(mbpp, models / "plain", data=path, train_items=371, test_items=500)
    found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    assert len(found) == 871 and task.provenance["data"]["split"] == "ranges"
    assert found[371].startswith("Write a python function to remove first and last occurrence of")
    size = task.problem.answering.sizes[0]
    program = "def remove_Occ(s, ch):\n    s = s.replace(ch, '', 1)[::-1]\n"
    program += "    return s.replace(ch, '', 1)[::-1]\n"
    texts = [f"```python\n{program}```"] + [""] * (size - 1)
    graded = task.problem.answering.read(0, said(tokenizer, texts))
    assert graded.items[0, 0] == 1 and graded.items.sum() == 1


def test_mbpp_s_programs_have_numpy_where_it_is_installed(models, tokenizer, tmp_path, in_process):
    data = str(write(tmp_path / "all.jsonl", [MBPP.row(i) for i in range(4)]))
    task = build(mbpp, models / "plain", data=data)
    program = "import numpy as np\ndef plus(x):\n    return int(np.array([x, {}]).sum())"
    texts = [f"```python\n{program.format(i)}\n```" for i in range(2)]
    assert task.problem.grade(said(tokenizer, texts, texts[::-1])).items.tolist() == [
        [1, 1],
        [0, 0],
    ]
