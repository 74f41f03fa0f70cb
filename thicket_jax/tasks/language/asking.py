"""What a task says: rows → what is asked, and what the grader reads."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text import prompts
from thicket_jax.text.data.rows import Row


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a language-model task is.

    Attributes:
      name: of the task.
      grader: `module:function`, see `thicket_jax.text.graders`.
      prompt: a row → what is asked, a text or the messages of a conversation; a `DataError` for
        a row that cannot be asked.
      item: a row → what the grader reads, JSON values; a `DataError` for one that it cannot read.
      notes: sentences that the report must say.
      shot: a row → the answer of a worked example, in the form that is asked for; a `DataError`
        for a row that has none; None for a task whose rows have none.
      labels: what stands around a question where worked examples are plain text.
    """

    name: str
    grader: str
    prompt: Callable[[Mapping[str, Any]], str | prompts.Messages]
    item: Callable[[Mapping[str, Any]], dict[str, Any]]
    notes: tuple[str, ...] = ()
    shot: Callable[[Mapping[str, Any]], str] | None = None
    labels: tuple[str, str] = prompts.LABELS


def read(
    rows: Sequence[Row], train: int, spec: Spec, options: Options
) -> tuple[list[str | prompts.Messages], list[dict[str, Any]]]:
    """Returns what is asked, and what the grader reads, of every row.

    Args:
      rows: of the training items, then of the test items.
      train: number of training items.
      spec: the task's.
      options: the task's, for the names of the files.

    Raises:
      DataError: a row cannot be asked or graded; the line shows it.
    """
    asked: list[str | prompts.Messages] = []
    items: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        file = options.data if number < train else options.test_data or options.data
        with naming(row, file):
            asked.append(spec.prompt(row))
            items.append(spec.item(row))
    return asked, items


@contextlib.contextmanager
def naming(row: Row, file: str | None) -> Iterator[None]:
    """Errors in a row's data show the row, and name its file."""
    try:
        yield
    except DataError as error:
        shown = json.dumps(row, ensure_ascii=False)
        place = f" of {file}" if file else ""
        raise DataError(f"{error}; mend the row{place} that begins {shown:.100}") from error
