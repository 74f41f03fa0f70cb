"""ROCStories: rewards in training, the exact order in the test."""

import numpy as np
import pytest
from language_cases import ROC, order
from language_tasks import asked, build, said, write

from thicket_jax.tasks.language import rocstories

pytest.importorskip("transformers")


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
    train = task.problem.grade(said(tokenizer, texts[:2]))
    np.testing.assert_allclose(train.items, [[expected[reward]] * 2])
    test = task.problem.answering.read(0, said(tokenizer, texts[2:]))
    assert test.items.tolist() == [[0, 0]]
    for graded in (train, test):
        for name, value in expected.items():
            np.testing.assert_allclose(graded.columns[name], [[value] * 2])
    assert any(reward in note for note in task.notes) == (reward != "exact")
    assert any("1 rows of train.csv are also test items" in note for note in task.notes)


def test_two_stories_that_begin_alike_are_two_items(models, tokenizer, tmp_path, in_process):
    write(tmp_path / "all.csv", [ROC.row(i) for i in range(4)])
    task = build(rocstories, models / "plain", data=str(tmp_path / "all.csv"))
    assert len(set(asked(tokenizer, task.problem.train, *task.problem.answering.pieces))) == 4
