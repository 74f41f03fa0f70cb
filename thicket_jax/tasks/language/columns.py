"""What a row of a data file has in a column: a text, or the messages of a conversation."""

from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text import prompts


def either(row: Mapping[str, Any], *names: str) -> Any:
    """Returns the value of the first of these columns that a row has; None if it has none."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def question(row: Mapping[str, Any], *names: str) -> str | prompts.Messages:
    """Returns what the first of these columns asks: a text, or the messages of a conversation.

    Raises:
      DataError: it is neither; see `prompts.messages`.
    """
    return prompts.question(either(row, *names), _first(row, *names))


def text(row: Mapping[str, Any], *names: str) -> str:
    """Returns the text, or the number as text, that the first of these columns has.

    Raises:
      DataError: it has something else, such as a list of messages.
    """
    return as_text(either(row, *names), _first(row, *names))


def as_text(value: Any, name: str) -> str:
    """Returns a value that is text, or a number, as text; anything else is a `DataError`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"its {name} {value!r:.80} is no text")
    return str(value)


def _first(row: Mapping[str, Any], *names: str) -> str:
    return next((name for name in names if row.get(name) is not None), names[0])
