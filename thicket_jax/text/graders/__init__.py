"""Graders: what a model generated, and a task's item → an answer and a score.

A grader is a function `grade(text, item) -> Outcome`. Its module may also have

* `same(a, b) -> bool`: whether two answers are one answer in a vote (default: equal strings);
* `COLUMNS`: the names of its further outcomes, so that they are known before the first text;
* `prepare()`: called once in each worker, so that no text's time is spent on imports.

It is run in worker processes, see `thicket_jax.text.grading`. A user's own function may return
less than an Outcome, see `outcome`.
"""

import dataclasses
import importlib.util
import inspect
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from thicket_jax.errors import ArgumentError
from thicket_jax.text.grading import Outcome

GRADERS = {
    "exact": "thicket_jax.text.graders.words:exact",
    "numeric": "thicket_jax.text.graders.numbers:grade",
    "math": "thicket_jax.text.graders.mathematics:grade",
    "contains-word": "thicket_jax.text.graders.words:contains_word",
}
"""Short names of graders that fit any data set with questions and answers."""


@dataclasses.dataclass(frozen=True)
class Grader:
    """A grader that was found; called with (text, item), it returns an `Outcome`.

    Attributes:
      spec: its name, as given.
      function: the function itself.
      same: whether two answers are one, or None: equal strings.
      columns: names of its further outcomes, or None where it does not say.
    """

    spec: str
    function: Callable[[str, Mapping[str, Any]], Any]
    same: Callable[[str, str], bool] | None
    columns: tuple[str, ...] | None

    def __call__(self, text: str, item: Mapping[str, Any]) -> Outcome:
        """Grades one text."""
        return outcome(self.function(text, item), text)


def find(spec: str) -> Grader:
    """Finds a grader by its short name, `module:function` or `path/to/file.py:function`.

    The current directory is importable. The grader's module is imported, and prepared.

    Raises:
      ArgumentError: an unknown name, no such module, file or function, a module that cannot be
        imported, or a function that does not take (text, item).
    """
    place, colon, name = GRADERS.get(spec, spec).rpartition(":")
    if not (colon and place and name):
        raise ArgumentError(
            f"grader={spec!r} is unknown; choose one of: {', '.join(GRADERS)}; or name a function, "
            "as module:function or path/to/file.py:function"
        )
    module = _module(spec, place)
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        known = ", ".join(key for key in functions if not key.startswith("_")) or "none"
        raise ArgumentError(f"grader={spec!r}: {place} has no function {name}; it has: {known}")
    _check_signature(spec, function)
    columns = getattr(module, "COLUMNS", None)
    return Grader(
        spec,
        function,
        getattr(module, "same", None),
        None if columns is None else tuple(columns),
    )


def outcome(value: Any, text: str) -> Outcome:
    """Returns what a grader returned as an `Outcome`.

    A bool or a number is the score, and the answer is then the text itself, its white space
    collapsed (an empty text abstains); a pair is (answer, score).

    Raises:
      TypeError: the grader returned something else.

    Example:
      >>> outcome(True, " a  dog ")
      Outcome(answer='a dog', score=1.0, columns={})
    """
    if isinstance(value, tuple) and len(value) == 2:
        value = Outcome(value[0], value[1])
    elif not isinstance(value, Outcome):
        value = Outcome(" ".join(text.split()) or None, value)
    if not (value.answer is None or isinstance(value.answer, str)):
        raise TypeError(f"its answer is {value.answer!r:.80}; return a string, or None")
    score = _number("its score", value.score)
    columns = {str(name): _number(f"its {name}", x) for name, x in value.columns.items()}
    return Outcome(value.answer, score, columns, value.timed_out)


def _number(what: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TypeError(
            f"{what} is {value!r:.80}; return a bool, a finite number, (answer, score) or Outcome"
        )
    return number


def _module(spec: str, place: str) -> ModuleType:
    try:
        module = _file(place) if place.endswith(".py") else _import(place)
        prepare = getattr(module, "prepare", None)
        if prepare is not None:
            prepare()
    except ArgumentError as error:
        raise ArgumentError(f"grader={spec!r}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module does when imported
        raise ArgumentError(
            f"grader={spec!r}: importing {place} raised {type(error).__name__}: {error}"
        ) from error
    return module


def _import(name: str) -> ModuleType:
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a user's numbers.py does not hide the library's
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ArgumentError(f"there is no module {name}, installed or in {here}") from error


def _file(place: str) -> ModuleType:
    path = pathlib.Path(place).expanduser().absolute()
    if not path.is_file():
        raise ArgumentError(f"there is no file {path}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    name = f"thicket_grader_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    module_spec.loader.exec_module(module)
    return module


def _check_signature(spec: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function of an extension module need not have one
        return
    try:
        signature.bind("", {})
    except TypeError as error:
        raise ArgumentError(
            f"grader={spec!r} takes {signature}; it must take (text, item)"
        ) from error
