"""Errors that say which argument or leaf, what was found, and what to do."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class ThicketError(Exception):
    """Base of every error that thicket_jax raises on purpose; its text is one line."""


class ArgumentError(ThicketError, ValueError):
    """An argument or option has a value that cannot work."""


class ParameterError(ThicketError, ValueError):
    """The parameter pytree cannot be perturbed as asked."""


class ScoreError(ThicketError, ValueError):
    """The score function returned something that is not a score, or failed for every expert."""


class MemoryLimitError(ThicketError, MemoryError):
    """One expert at a time does not fit the device."""


class RunError(ThicketError):
    """A run directory is damaged, exists already, or belongs to a different run."""


class PeerError(RunError):
    """Another process of this program ended while this one waited for it."""


class DataError(ThicketError):
    """A data set is missing, damaged, or too small for disjoint splits."""


def check_choice(option: str, name: Any, known: Iterable[str]) -> None:
    """Raises `ArgumentError`, naming the option and the known values, unless `name` is known."""
    known = tuple(known)
    if not isinstance(name, str) or name not in known:
        raise ArgumentError(f"{option}={shown(name)} is unknown; choose one of: {', '.join(known)}")


def check_word(kind: str, word: str, known: Iterable[str]) -> None:
    """Raises `ArgumentError`, naming the known ones, unless there is such a task or command."""
    known = tuple(known)
    if word not in known:
        raise ArgumentError(f"unknown {kind} {word!r}; choose one of: {', '.join(known)}")


def check_count(name: str, value: Any) -> int:
    """Returns `value` as an int; anything but a whole number of at least 1 is an error."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"{name}={shown(value)} must be a whole number of at least 1")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Raises `ArgumentError` unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name}={shown(value)} must be True or False")


def shown(value: Any, most: int = 100) -> str:
    """Returns what a value looks like in one line of so many characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."
