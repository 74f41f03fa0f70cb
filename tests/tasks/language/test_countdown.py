"""Countdown generates its puzzles."""

import pathlib

import pytest
from language_tasks import build, said

from thicket_jax.tasks.language import countdown, countdown_dataset
from thicket_jax.text.prompts import open_tokenizer

pytest.importorskip("transformers")


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
    graded = task.problem.answering.read(0, said(open_tokenizer(models / "plain"), solved))
    assert graded.items.tolist() == [[1, 1, 1]]
    assert task.provenance["data"]["split"] == "generated with seed 0"
