"""MBPP: short Python programs (Neural Thickets, language experiments).

Rows: `text` (or `prompt`), `test_list`, `task_id`, and `test_setup_code` or `test_imports`. Tasks
601 to 974 are for selection and 11 to 510 for testing, as published. Programs run in a sandbox.
"""

import ast
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.prompts import Messages, around

_LEAST_MEGABYTES = 64
_LEAST_SECONDS = 2  # of grading, for each second that a program may run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run mbpp`."""

    data: str | None = None
    """File with text, test_list and task_id: the authors' JSONL, or parquet."""
    max_tokens: int = 512
    """Tokens that are generated at most for a program."""
    program_seconds: float = 5.0
    """Seconds that a generated program may run."""
    program_megabytes: int = 512
    """Memory that it may take."""

    STOPS: ClassVar[tuple[str, ...]] = (
        *settings.Options.STOPS,
        "\nWrite it in Python. It must pass these tests:",
    )

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        task.check_seconds("program_seconds", self.program_seconds)
        task.check_seconds("grade_seconds", self._least_seconds)
        most = task.memory_bytes() // 2**20
        if not _LEAST_MEGABYTES <= self.program_megabytes <= max(_LEAST_MEGABYTES, most):
            raise ArgumentError(
                f"program_megabytes={self.program_megabytes} must be {_LEAST_MEGABYTES}, which "
                f"Python itself takes, to {most}, which the machine has"
            )

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why."""
        found = super().unread()
        if self.grade_seconds < self._least_seconds:
            found["grade_seconds"] = (
                f"is too short beside --program-seconds {self.program_seconds:g}: give "
                f"{self._least_seconds:g} or more"
            )
        return found

    @property
    def _least_seconds(self) -> float:
        """Seconds that grading must be given at least."""
        return 4 + _LEAST_SECONDS * self.program_seconds


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    seconds = max(options.grade_seconds, options._least_seconds)
    options = dataclasses.replace(options, grade_seconds=seconds)
    split = shared.read_split(
        options, (("text", "prompt"), "test_list"), identity=(("text", "prompt"),), ranges=part
    )
    limits = {
        "time_limit": options.program_seconds,
        "memory_bytes": options.program_megabytes * 2**20,
    }

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        setup = row.get("test_setup_code") or row.get("test_imports") or ""
        parts = setup if isinstance(setup, list) else [setup]
        setup = "\n".join(columns.as_text(part, "setup") for part in parts)
        return {"tests": tests(row), "test_setup_code": setup, "limits": limits}

    spec = asking.Spec("mbpp", "thicket_jax.text.graders.code:grade", prompt, item, shot=shot)
    return shared.build(options, spec, split, tell)


def part(row: Mapping[str, Any]) -> Literal["train", "test"] | None:
    """Returns the published part of a task, by its number."""
    number = row.get("task_id")
    if number is None or not str(number).isdigit():
        return None
    if 601 <= int(number) <= 974:
        return "train"
    return "test" if 11 <= int(number) <= 510 else None


def tests(row: Mapping[str, Any]) -> list[str]:
    """Returns a row's tests, each a statement of Python."""
    found = row["test_list"]
    if not (isinstance(found, list) and found and all(isinstance(test, str) for test in found)):
        raise DataError(f"its test_list {found!r:.80} must be a list of statements of Python")
    for test in found:
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes in the tests' strings
                ast.parse(test.strip())
        except (SyntaxError, ValueError) as error:
            raise DataError(f"its test {test!r:.80} is no Python ({error})") from error
    return found


def prompt(row: Mapping[str, Any]) -> str | Messages:
    """Returns what is asked, with the tests that the program must pass."""
    shown = "\n".join(test.strip() for test in tests(row))
    return around(
        columns.question(row, "text", "prompt"),
        after=f"\n\nWrite it in Python. It must pass these tests:\n\n{shown}\n\nAnswer with one "
        "block of code, between ```python and ```.",
    )


def shot(row: Mapping[str, Any]) -> str:
    """Returns a row's program, as a block."""
    if not row.get("code"):
        raise DataError("it has no code, which --few-shot would show")
    code = "\n".join(columns.text(row, "code").strip().splitlines())
    return f"```python\n{code}\n```"
