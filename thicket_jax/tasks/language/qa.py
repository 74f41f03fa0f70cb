"""Questions and answers of your own: any JSONL, JSON, CSV or parquet file, and a grader by name."""

import dataclasses
import string
from collections.abc import Mapping
from typing import Any, Self

from thicket_jax.errors import ArgumentError, DataError, check_choice
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.graders import GRADERS, find
from thicket_jax.text.graders.marked import boxed
from thicket_jax.text.graders.numbers import flexible, strict
from thicket_jax.text.graders.words import normal
from thicket_jax.text.prompts import LABELS, Messages, messages

_EXTRACTIONS = ("strict", "flexible")
_EXTRACTING = ("numeric", "math")  # graders that find an answer in two ways


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run qa`."""

    data: str | None = None
    """File, or folder with train and test files: JSONL, JSON, CSV or parquet."""
    question: str = "question"
    """Column of the question: text, or a list of messages for the chat template."""
    answer: str = "answer"
    """Column of the right answer; for exact and contains-word also a list of those accepted."""
    choices: str | None = None
    """Column of the choices, a list, for contains-word."""
    grader: str = "exact"
    """exact, numeric, math, contains-word, or your own: module:function or file.py:function."""
    extraction: str = "flexible"
    """Of numeric and math. strict: only after ####, or boxed; flexible: it may stand elsewhere."""
    prompt: str = "{question}"
    """What is asked; {question} and other columns in braces are filled in."""

    def resolved(self) -> Self:
        """Returns the options with paths made absolute and defaults filled in."""
        place, colon, name = self.grader.rpartition(":")
        if not (colon and place.endswith(".py")):
            return super().resolved()
        grader = f"{settings.absolute(place)}:{name}"
        return dataclasses.replace(super().resolved(), grader=grader)

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("extraction", self.extraction, _EXTRACTIONS)
        if self.grader not in GRADERS and ":" not in self.grader:
            find(self.grader)  # which says what there is

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why."""
        found = super().unread()
        if self.grader in GRADERS and self.grader != "contains-word":
            found["choices"] = f"is read by the grader contains-word, not by {self.grader}"
        if self.grader not in _EXTRACTING:
            found["extraction"] = f"is read by numeric and math, not by {self.grader}"
        return found


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    find(options.grader)
    needed = [options.question, options.answer]
    needed += [options.choices] if options.choices else []
    split = shared.read_split(options, tuple(needed), identity=(options.question,))

    def prompt(row: Mapping[str, Any]) -> str | Messages:
        question = messages(row[options.question], options.question)
        if question is not None:
            if options.prompt != "{question}":
                raise ArgumentError(
                    f"--prompt {options.prompt!r} cannot hold the messages of {options.question}; "
                    "leave it out"
                )
            return question
        columns = {**row, "question": row[options.question]}
        try:
            return _Prompt().vformat(options.prompt, (), columns)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise ArgumentError(
                f"--prompt {options.prompt!r} cannot be filled in ({type(error).__name__}: {error})"
                f"; columns are: {', '.join(row)}"
            ) from None

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        question, answer = row[options.question], row[options.answer]
        if options.grader not in GRADERS:  # an own grader sees the whole row
            choices = {"choices": row[options.choices]} if options.choices else {}
            return {**row, "question": question, "answer": answer, **choices}
        found = {"answer": _answer(answer, options.grader)}
        if options.grader in _EXTRACTING:
            found["extraction"] = options.extraction
        if options.choices:
            found["choices"] = _choices(row[options.choices], found["answer"], options.choices)
        return found

    def shot(row: Mapping[str, Any]) -> str:
        return _shown(row[options.answer], options)

    # A prompt of the user's own has its own words for what is a question and what an answer.
    labels = LABELS if options.prompt == "{question}" else ("", "")
    spec = asking.Spec("qa", options.grader, prompt, item, shot=shot, labels=labels)
    return shared.build(options, spec, split, tell)


class _Prompt(string.Formatter):
    """Fills columns in; a list is its words between commas, as choices are in a prompt."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Returns a value as text; what would be written as Python writes it is refused."""
        parts = value if isinstance(value, list) else [value]
        if any(part is None or isinstance(part, list | dict) for part in parts):
            raise DataError(
                f"a column that --prompt names holds {value!r:.60}, which is neither text nor a "
                "list of texts"
            )
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        return str(super().format_field(shown, format_spec))


def _answer(value: Any, grader: str) -> Any:
    """The right answer as one of the package's graders reads it."""
    if grader in ("exact", "contains-word"):
        accepted = _texts(value if isinstance(value, list) else [value], "answer")
        if not accepted or not all(map(normal, accepted)):
            raise DataError(f"its answer {value!r:.80} is empty")
        return accepted
    if grader == "numeric" and (isinstance(value, list) or not _is_number(str(value))):
        raise DataError(f"its answer {value!r:.80} is no number, which the grader numeric reads")
    parts = value if isinstance(value, list) else [value]
    if grader == "math" and not all(part.strip() for part in _texts(parts, "answer") or [""]):
        raise DataError(f"its answer {value!r:.80} is empty")
    return value


def _shown(value: Any, options: Options) -> str:
    """The right answer as an example shows it: in the form that the grader wants strictly."""
    parts = _texts(value if isinstance(value, list) else [value], "answer")
    if not any(part.strip() for part in parts):
        raise DataError(f"its answer {value!r:.80} is empty")
    text = ", ".join(parts) if options.grader == "math" else parts[0]
    if options.extraction == "strict" and options.grader == "math" and boxed(text) is None:
        return f"\\boxed{{{text}}}"
    if options.extraction == "strict" and options.grader == "numeric" and "####" not in text:
        return f"#### {text}"
    return text


def _texts(values: list[Any], name: str) -> list[str]:
    """Values as text; an object, a list or nothing among them is a `DataError`."""
    for value in values:
        if value is None or isinstance(value, list | dict):
            raise DataError(f"its {name} has {value!r:.60} in it, which is no text")
    return [str(value) for value in values]


def _is_number(text: str) -> bool:
    return (strict if "####" in text else flexible)(text) is not None


def _choices(value: Any, accepted: list[str], column: str) -> list[str]:
    if not isinstance(value, list):
        raise DataError(f"its {column} {value!r:.80} must be a list, as JSON has them")
    choices = _texts(value, column)
    if {normal(each) for each in accepted}.isdisjoint(map(normal, choices)):
        raise DataError(f"its answer {', '.join(accepted)!r:.80} is none of its {column}")
    return choices
