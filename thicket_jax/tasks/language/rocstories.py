"""ROCStories: put the five sentences of a story in order (Neural Thickets).

Rows: `sentence1` to `sentence5`, as the authors' CSV, or `sentences`, a list. Only the exact order
counts as right; the share of right positions or neighbours can be what experts are selected by.
"""

import dataclasses
import hashlib
import string
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from thicket_jax.errors import DataError, check_choice
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save

_REWARDS = ("exact", "position", "adjacency")
_COLUMNS = tuple(f"sentence{i}" for i in range(1, 6))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run rocstories`."""

    data: str | None = None
    """File or folder with sentence1 to sentence5, or sentences, in the right order."""
    max_tokens: int = 128
    """Tokens that are generated at most for an answer."""
    reward: str = "exact"
    """What experts are selected by: exact, position or adjacency; only exact orders are right."""

    STOPS: ClassVar[tuple[str, ...]] = (
        *settings.Options.STOPS,
        "\nThese sentences of a story are in the wrong order",
    )

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("reward", self.reward, _REWARDS)


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    split = shared.read_split(options, tuple((name, "sentences") for name in _COLUMNS))
    train = {id(row) for row in split.train}

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        # Test answers are always graded by the exact order.
        reward = options.reward if id(row) in train else "exact"
        return {"order": shuffled(row)[1], "reward": reward}

    notes: tuple[str, ...] = ()
    if options.reward != "exact":
        notes = (
            f"Experts were selected by the {options.reward} score of their orders; figures on "
            "training items are that score, figures on test items are exact orders.",
        )
    grader = "thicket_jax.text.graders.sequence:grade"
    spec = asking.Spec("rocstories", grader, prompt, item, notes, shot)
    return shared.build(options, spec, split, tell)


def sentences(row: Mapping[str, Any]) -> list[str]:
    """Returns a story's sentences, in order."""
    given = row.get("sentences")
    if given is None:
        given = [row[name] for name in _COLUMNS]
    if not isinstance(given, list):
        raise DataError(f"its sentences {given!r:.80} must be a list")
    found = [columns.as_text(sentence, "sentence").strip() for sentence in given]
    if not all(found):
        raise DataError("one of its sentences is empty")
    if not 2 <= len(found) <= len(string.ascii_uppercase):
        raise DataError(f"it has {len(found)} sentences; 2 to 26 can be put in order")
    return found


def shuffled(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns the sentences in the order shown, labelled A, B, ..., and the labels in right order.

    The order is drawn from the story's own text, so that it is the same in every run.
    """
    story = sentences(row)
    seed = int.from_bytes(hashlib.sha256("\n".join(story).encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    shown = random.permutation(len(story))
    while (shown == np.arange(len(story))).all():
        shown = random.permutation(len(story))
    labels = {int(place): string.ascii_uppercase[i] for i, place in enumerate(shown)}
    return [story[place] for place in shown], [labels[i] for i in range(len(story))]


def prompt(row: Mapping[str, Any]) -> str:
    """Returns what is asked."""
    shown, _ = shuffled(row)
    lines = "\n".join(f"{string.ascii_uppercase[i]}: {text}" for i, text in enumerate(shown))
    return (
        f"These sentences of a story are in the wrong order:\n\n{lines}\n\nPut them in the order "
        "in which the story makes sense. Write the letters of all sentences in that order between "
        "<answer> and </answer>, separated by commas."
    )


def shot(row: Mapping[str, Any]) -> str:
    """Returns the right order, as an answer."""
    return f"<answer>{', '.join(shuffled(row)[1])}</answer>"
