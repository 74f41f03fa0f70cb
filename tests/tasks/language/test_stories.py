"""Stories: prompts without overlap, and what the real model was trained on."""

import re

import pytest
from language_models import STORIES
from language_tasks import asked, build, said

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks.language import stories
from thicket_jax.text.prompts import open_tokenizer

pytest.importorskip("transformers")


def test_stories_deals_out_its_prompts_without_overlap(models, tokenizer, in_process):
    task = build(stories, models / "plain", train_items=300, test_items=450)
    found = asked(tokenizer, task.problem.train, *task.problem.answering.pieces)
    assert len(set(found)) == len(found) == 750
    hero = re.search(r"named (\w+)\. One day, \1$", found[0])[1]
    graded = task.problem.grade(said(tokenizer, [f" saw {hero}'s box."] + [""] * 299))
    assert graded.items[0, 0] == 1 and graded.answers[0, 0] == "named"
    assert not graded.items[0, 1:].any() and set(graded.answers[0, 1:]) == {"not named"}
    # More of one part does not change the other.
    more = build(stories, models / "plain", train_items=301, test_items=2)
    assert asked(tokenizer, more.problem.train)[:300] == found[:300]
    with pytest.raises(ArgumentError, match=r"stories has 750 prompts, not 500 .* and 251 "):
        build(stories, models / "plain", train_items=500, test_items=251)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the model stories260K is not at {STORIES}")
def test_stories_on_the_real_model_asks_what_it_was_trained_on(in_process):
    task = build(stories, STORIES, test_items=256)
    found = asked(open_tokenizer(STORIES), task.problem.train)
    assert all(text.startswith("Once upon a time, there was a little ") for text in found)
    assert task.problem.train["tokens"].shape == task.problem.answering.pieces[0]["tokens"].shape
    assert [(piece["row"] >= 0).sum() for piece in task.problem.answering.pieces[:2]] == [2, 2]
    assert sum(task.problem.answering.sizes) == 256 and not task.provenance["chat_template"]
