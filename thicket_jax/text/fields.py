"""A JSON object whose fields are asked for by type; what does not fit is an error that names it."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError

REQUIRED = object()
"""The default of a field that must be there."""


class Fields:
    """The fields of an object, each by its type.

    Attributes:
      path: the object's file, for errors.
      values: what is in it.
      defaults: of fields that are absent.
    """

    def __init__(self, path: pathlib.Path, values: Mapping[str, Any], defaults: Mapping[str, Any]):
        """Holds the three."""
        self.path, self.values, self.defaults = path, values, defaults

    def error(self, text: str) -> DataError:
        """Returns the error that names the file."""
        return DataError(f"{self.path}: {text}")

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value; if absent, that of `defaults`; where that is null, `default`."""
        value = self.values.get(name, self.defaults.get(name))
        if value is None and default is REQUIRED:
            raise self.error(f"{name} is missing; is this the config of a language model?")
        return default if value is None else value

    def integer(self, name: str, default: Any = REQUIRED, least: int = 1) -> int:
        """Returns a whole number from `least` up; a `DataError` says what else was found."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{name} is {value!r}; it must be a whole number from {least} up")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """Returns a finite number above 0."""
        value = self.get(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not 0 < value < math.inf:
            raise self.error(f"{name} is {value!r}; it must be a number above 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """Returns true or false, which it is if absent."""
        value = self.get(name, False)
        if not isinstance(value, bool):
            raise self.error(f"{name} is {value!r}; it must be true or false")
        return value

    def word(self, name: str, default: Any, allowed: tuple[str, ...]) -> str:
        """Returns one of the words that are allowed."""
        value = self.get(name, default)
        if value not in allowed:
            known = ", ".join(allowed)
            raise self.error(f"{name} = {value!r} is not implemented; known are {known}")
        return value


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file; anything else is a `DataError` that names it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as JSON ({reason}); copy it again") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}, not an object of named fields")
    return values
