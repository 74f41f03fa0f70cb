"""OlympiadBench, text only: olympiad problems with final answers (Neural Thickets).

Rows: `question` and `final_answer`, a list; and where they have them `context`, `unit`, `error`
and `is_multiple_answer`. It is published as a test set without a training part.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, competition, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.data.files import words
from thicket_jax.text.prompts import Messages, around

_COPIED = ("final_answer", "answer", "unit", "error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(competition.Options):
    """The options of `thicket run olympiadbench`."""

    data: str | None = None
    """File with question and final_answer to select on; test items come from --test-data."""


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    split = shared.read_split(
        options,
        (("question", "problem"), ("final_answer", "answer")),
        identity=(("question", "problem"),),
        # Every file of the benchmark is its test set; only a part that says so is for training.
        published_test=lambda path: "train" not in words(path),
    )

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: row[name] for name in _COPIED if row.get(name) is not None}
        answer = columns.either(row, "final_answer", "answer")
        parts = answer if isinstance(answer, list) else [answer]
        if not parts or not all(columns.as_text(part, "answer").strip() for part in parts):
            raise DataError(f"its answer {answer!r:.80} is empty")
        if row.get("modality") == "Multimodal":
            raise DataError("it needs its pictures; use the text-only part of OlympiadBench")
        return {**found, "extraction": options.extraction}

    grader = "thicket_jax.text.graders.mathematics:grade"
    spec = asking.Spec("olympiadbench", grader, prompt, item, shot=shot)
    return shared.build(options, spec, split, tell)


def prompt(row: Mapping[str, Any]) -> str | Messages:
    """Returns what is asked."""
    question = columns.question(row, "question", "problem")
    context = f"{columns.text(row, 'context').strip()}\n\n" if row.get("context") else ""
    several = " If there are several answers, separate them with commas."
    unit = ""
    if row.get("unit"):
        unit = f" The answer is in {columns.text(row, 'unit')}; leave the unit out."
    told = "\n\nReason step by step, and put the final answer in \\boxed{}."
    told += f"{several if row.get('is_multiple_answer') else ''}{unit}"
    return around(question, context, told)


def shot(row: Mapping[str, Any]) -> str:
    """Returns a row's first worked solution, with the answers boxed."""
    solution = row.get("solution")
    if isinstance(solution, list):
        solution = solution[0] if solution else None
    if solution is None:
        raise DataError("it has no solution, which --few-shot would show")
    told = columns.as_text(solution, "solution").strip()
    answer = columns.either(row, "final_answer", "answer")
    parts = map(str, answer if isinstance(answer, list) else [answer])
    final = ", ".join(part.strip().strip("$") for part in parts)
    return f"{told}\n\nThe final answer is \\boxed{{{final}}}."
