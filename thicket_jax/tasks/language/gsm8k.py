"""GSM8K: grade-school word problems (Neural Thickets, language experiments).

Reads the authors' JSONL and the usual parquet: `question`, and `answer` with `#### N` at its end.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from thicket_jax.errors import DataError, check_choice
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.graders.numbers import flexible, strict
from thicket_jax.text.prompts import Messages, around

_EXTRACTIONS = ("strict", "flexible")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run gsm8k`."""

    data: str | None = None
    """File or folder with question and answer: the authors' JSONL, or parquet."""
    max_tokens: int = 512
    """Tokens that are generated at most for an answer; the paper has 1024."""
    extraction: str = "strict"
    """strict: the number after ####; flexible: the last number will do. Both are recorded."""

    STOPS: ClassVar[tuple[str, ...]] = (
        *settings.Options.STOPS,
        "\nReason step by step. Then write the final answer",
    )

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("extraction", self.extraction, _EXTRACTIONS)


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    split = shared.read_split(options, ("question", "answer"), identity=("question",))

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        solution = columns.text(row, "answer")
        if (strict if "####" in solution else flexible)(solution) is None:
            raise DataError(f"its answer {solution!r:.80} does not end with a number after ####")
        return {"answer": row["answer"], "extraction": options.extraction}

    spec = asking.Spec("gsm8k", "numeric", prompt, item, shot=shot)
    return shared.build(options, spec, split, tell)


def prompt(row: Mapping[str, Any]) -> str | Messages:
    """Returns what is asked."""
    return around(
        columns.question(row, "question"),
        after="\n\nReason step by step. Then write the final answer on a line of its own as #### "
        "followed by the number, for example: #### 42",
    )


def shot(row: Mapping[str, Any]) -> str:
    """Returns a row's worked answer, without the marks of the authors' calculator."""
    solution = re.sub(r"<<.*?>>", "", columns.text(row, "answer")).strip()
    return solution if "####" in solution else f"{solution}\n#### {flexible(solution)}"
