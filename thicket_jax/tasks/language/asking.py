"""What a task asks: rows → prompts, and what the grader reads of each."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text import prompts
from thicket_jax.text.config import Config
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
    """

    name: str
    grader: str
    prompt: Callable[[Mapping[str, Any]], str | prompts.Messages]
    item: Callable[[Mapping[str, Any]], dict[str, Any]]
    notes: tuple[str, ...] = ()


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
        try:
            asked.append(spec.prompt(row))
            items.append(spec.item(row))
        except DataError as error:
            shown = json.dumps(row, ensure_ascii=False)
            file = options.data if number < train else options.test_data or options.data
            place = f" of {file}" if file else ""
            raise DataError(f"{error}; mend the row{place} that begins {shown:.100}") from error
    return asked, items


def check_fit(options: Options, config: Config, encoded: Sequence[Sequence[int]]) -> None:
    """Raises `DataError` unless the model has the prompts' tokens, and room for them.

    Args:
      options: the task's.
      config: the model's.
      encoded: token ids, item by item.
    """
    prompts.check_lengths(encoded, options.max_tokens, config.max_positions)
    largest = max(map(max, encoded))
    if largest >= config.vocab_size:
        raise DataError(
            f"{options.model}: its tokenizer gives token {largest}, but config.json has "
            f"{config.vocab_size} tokens; are they of one checkpoint?"
        )
