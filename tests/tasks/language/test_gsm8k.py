"""GSM8K on the authors' data."""

import pytest
from language_tasks import asked, build, said
from shared_data import real

from thicket_jax.tasks.language import gsm8k

pytest.importorskip("transformers")


def test_the_authors_gsm8k(models, tokenizer, in_process):
    task = build(gsm8k, models / "plain", data=real("gsm8k"), train_items=200, test_items=100)
    found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    assert len(set(found)) == 300 and found[0].startswith("Natalia sold clips to 48 of her friends")
    right = task.problem.grade(said(tokenizer, ["#### 72."] + [""] * 199))
    assert right.items[0, 0] == 1 and right.items.sum() == 1
