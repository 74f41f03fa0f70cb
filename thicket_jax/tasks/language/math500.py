"""MATH-500: competition problems with answers in LaTeX (Neural Thickets, language experiments).

The 500 problems are a test set: experts are selected on the training problems of MATH, given with
--data, and tested on MATH-500, given with --test-data. Rows: `problem`, and `answer` or `solution`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, competition, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.graders.marked import boxed
from thicket_jax.text.prompts import Messages, around


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(competition.Options):
    """The options of `thicket run math500`."""

    data: str | None = None
    """File or folder with problem and answer (or solution) to select on: MATH's training part."""
    test_data: str | None = None
    """The test file: MATH-500."""


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    split = shared.read_split(
        options,
        (("problem", "question"), ("answer", "solution")),
        identity=(("problem", "question"),),
        published_test=("math500", "math-500"),
    )

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        answer = row.get("answer")
        if answer is None:
            answer = boxed(columns.text(row, "solution"))
        if answer is None or not columns.as_text(answer, "answer").strip():
            raise DataError("it has no answer, and none in \\boxed{} in its solution")
        return {"answer": str(answer), "extraction": options.extraction}

    grader = "thicket_jax.text.graders.mathematics:grade"
    spec = asking.Spec("math500", grader, prompt, item, shot=shot)
    return shared.build(options, spec, split, tell)


def prompt(row: Mapping[str, Any]) -> str | Messages:
    """Returns what is asked."""
    problem = columns.question(row, "problem", "question")
    return around(problem, after="\n\nReason step by step, and put the final answer in \\boxed{}.")


def shot(row: Mapping[str, Any]) -> str:
    """Returns a row's worked solution, with the answer boxed."""
    if row.get("solution") is None:
        raise DataError("it has no solution, which --few-shot would show")
    solution = columns.text(row, "solution").strip()
    if boxed(solution) is not None:
        return solution
    return f"{solution}\n\nThe final answer is \\boxed{{{columns.text(row, 'answer')}}}."
