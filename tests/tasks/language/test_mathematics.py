"""MATH-500 on the authors' data."""

import pytest
from language_tasks import asked, build, said
from shared_data import real

from thicket_jax.errors import DataError
from thicket_jax.tasks.language import math500

pytest.importorskip("transformers")


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
    found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    assert len(set(found)) == len(found) == 500
    polar = next(i for i, text in enumerate(found) if text.startswith("Convert the point $(0,3)$"))
    texts = [""] * 500
    texts[polar] = r"\boxed{(3, \frac{\pi}{2})}"
    graded = [task.problem.grade(said(tokenizer, texts[:20]))] if polar < 20 else []
    first = 20
    for number, size in enumerate(task.problem.answering.sizes):
        if first <= polar < first + size:
            graded += [
                task.problem.answering.read(number, said(tokenizer, texts[first : first + size]))
            ]
        first += size
    assert first == 500 and graded[0].items.sum() == 1
