"""Countdown: reach a target with given numbers (Neural Thickets, language experiments).

Puzzles are generated, every one of them solvable, or read from files with `numbers` and `target`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from thicket_jax.errors import ArgumentError, DataError, check_choice
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.data.splits import Split

MOST_PUZZLES = 2**16

_EXTRACTIONS = ("strict", "flexible")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run countdown`."""

    data: str | None = None
    """File with numbers (or nums) and target; default: generated puzzles."""
    extraction: str = "strict"
    """strict: the answer stands in <answer> tags; flexible: it may stand elsewhere."""

    STOPS: ClassVar[tuple[str, ...]] = (*settings.Options.STOPS, "\nUse the numbers")

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("extraction", self.extraction, _EXTRACTIONS)
        for name in ("train_items", "test_items", "few_shot"):
            if self.data is None and getattr(self, name) > MOST_PUZZLES:
                raise ArgumentError(
                    f"{name}={getattr(self, name)} must be {MOST_PUZZLES} at most, the puzzles "
                    "that are generated"
                )


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    if options.data is None:
        from thicket_jax.tasks.language.countdown_dataset import open_puzzles

        assert options.test_items is not None
        folder = options.cache_folder() / "tfds"
        tell("looking for the puzzles, or generating them")
        count = options.train_items
        train, test = open_puzzles(
            folder, count + options.few_shot, options.test_items, options.seed
        )
        how = {"split": f"generated with seed {options.seed}"}
        split = Split(train[:count], test, (), how, train[count:])
    else:
        split = shared.read_split(options, (("numbers", "nums"), "target"))

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        numbers, target = puzzle(row)
        return {"numbers": numbers, "target": target, "extraction": options.extraction}

    grader = "thicket_jax.text.graders.countdown:grade"
    spec = asking.Spec("countdown", grader, prompt, item, shot=shot)
    return shared.build(options, spec, split, tell)


def puzzle(row: Mapping[str, Any]) -> tuple[list[int], int]:
    """Returns a row's numbers and its target."""
    numbers, target = columns.either(row, "numbers", "nums"), row["target"]
    if not (isinstance(numbers, list) and numbers and all(map(_is_whole, [*numbers, target]))):
        raise DataError(
            f"numbers={numbers!r:.80} must be a list of whole numbers and target={target!r:.80} one"
        )
    return [int(number) for number in numbers], int(target)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0


def prompt(row: Mapping[str, Any]) -> str:
    """Returns what is asked."""
    numbers, target = puzzle(row)
    return (
        f"Use the numbers {', '.join(map(str, numbers))} to make {target}. Every number must be "
        "used exactly once, with addition, subtraction, multiplication, division and parentheses "
        "only. Think step by step, then write the expression alone between <answer> and </answer>, "
        "for example <answer>(1 + 2) * 3</answer>."
    )


def shot(row: Mapping[str, Any]) -> str:
    """Returns a puzzle's solution, as an answer."""
    if row.get("solution") is None:
        raise DataError("it has no solution, which --few-shot would show")
    return f"<answer>{columns.text(row, 'solution')}</answer>"
