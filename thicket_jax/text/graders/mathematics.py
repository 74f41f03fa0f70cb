r"""Mathematical answers in LaTeX: MATH-500, OlympiadBench; equivalence by math-verify.

Two ways to find the answer, both recorded:

* strict: the content of the last `\boxed{...}` whose braces balance;
* flexible: the strict one; else the last expression that math-verify finds in the last lines.

The answer to vote on is its LaTeX in a normal form of spacing; `same` makes classes of equivalent
ones. Answers of several parts, between commas, are right in any order.

Item: `answer` or `final_answer`, a string or a list of the parts, in LaTeX, or the authors'
solution with the answer boxed; `extraction`, `strict` (default) or `flexible`: which of the two is
answer and score; `unit`, which the answer may be followed by (math-verify ignores the units that it
knows, so a wrong one is not noticed); `error`, the absolute tolerance of a number, or of each part,
between commas.

A parse or a comparison that takes longer than 3 s finds nothing. That limit is an alarm, see
`alarm`: what it cannot stop, the limit of the worker process does.
"""

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from thicket_jax.errors import ArgumentError, DataError, check_choice
from thicket_jax.text.graders.alarm import within
from thicket_jax.text.graders.marked import boxed
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_SECONDS = 3  # for one parse or one comparison
_LONGEST = 1000  # characters of an answer that is parsed; a longer one equals itself alone
_TAIL = 1000  # characters at the end of a text in which an unboxed answer is looked for
_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|(?<!\\)\\[,!;: ]|~|\\q?quad(?![A-Za-z])"
)
_AND = re.compile(r"\s*,?\s*(?:\\(?:text|mathrm|mbox)\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*")
_KEPT_SPACE = re.compile(
    r"(\\(?:text|mathrm|mbox)[a-z]*\{[^{}]*\}|\\[A-Za-z]+ (?=[A-Za-z])|, (?=[0-9]{3}(?![0-9])))| "
)
_WORDS = re.compile(r"\\text[a-z]*\{\s*([^{}\\]*[A-Za-z]{2}[^{}\\]*)\}|([A-Za-z][A-Za-z ]{3,})")
_RELATION = re.compile(r"[=<>]|\\(?:lt|gt|leq?|geq?|neq?|in)(?![A-Za-z])")
_WHOLE = re.compile(r"-?[0-9]{1,300}")
_UNIT_MARKUP = re.compile(
    r"\\(?:text|mathrm|mbox|rm|operatorname)(?![A-Za-z])|\\[,!;: ]|[{}~$\s\\]"
)
_OPENING, _CLOSING = "([{", ")]}"


def prepare() -> None:
    """Imports math-verify and builds its patterns, before the first text's time begins."""
    _parse("1")


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    r"""Grades the answer that a text boxes.

    Example:
      >>> grade(r"It is \boxed{\dfrac{1}{2}}.", {"answer": "0.5"})
      Outcome(answer='\\frac{1}{2}', score=1.0, columns={'strict': 1.0, 'flexible': 1.0})
    """
    gold = _gold(item)
    extraction = item.get("extraction", "strict")
    check_choice("extraction", extraction, COLUMNS)
    marked = boxed(text)
    found = {"strict": normal(marked or "") or None}
    found["flexible"] = found["strict"] or _last_expression(text)
    right = {answer: answer is not None and _right(gold, answer, item) for answer in found.values()}
    scores = {name: float(right[answer]) for name, answer in found.items()}
    return Outcome(found[extraction], scores[extraction], scores)


def same(a: str, b: str) -> bool:
    """Whether two answers are equivalent, whichever of the two math-verify takes as the gold one.

    Example:
      >>> same("x=5", "5"), same("(1,2)", "(2,1)")
      (True, False)
    """
    return _equal(a, b) or (_RELATION.search(a + b) is not None and _equal(b, a))


def normal(latex: str) -> str:
    r"""Returns LaTeX without what only spaces it, in one spelling of fractions.

    Example:
      >>> normal(r" $\left( 3, \dfrac{\pi r}{2} \right)$. ")
      '(3,\\frac{\\pi r}{2})'
    """
    latex = _SPACING.sub(" ", latex.replace("{,}", ",").replace(",\\!", ","))
    latex = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", latex).replace("−", "-")
    latex = " ".join(latex.split()).strip("$ ").removesuffix(".").rstrip("$ ")
    return _KEPT_SPACE.sub(lambda match: match[1] or "", latex)


def _gold(item: Mapping[str, Any]) -> tuple[str, ...]:
    given = item.get("answer", item.get("final_answer"))
    parts = tuple(given) if isinstance(given, list) else (given,)
    gold = tuple(normal(boxed(str(part)) or str(part)) for part in parts if part is not None)
    if not (gold and all(gold)):
        raise DataError(f"the task's answer {given!r:.80} is empty; mend the data file")
    return gold


def _right(gold: Sequence[str], answer: str, item: Mapping[str, Any]) -> bool:
    unit, error = item.get("unit") or "", item.get("error") or ""
    if unit:
        gold = [_without_unit(part, unit) for part in gold]
        answer = _without_unit(answer, unit)
    if _equal(", ".join(gold), answer):
        return True
    wanted, given = [part for whole in gold for part in _parts(whole)], _parts(answer)
    allowed = _tolerances(error, len(wanted))
    if len(given) != len(wanted) or (len(wanted) == 1 and not allowed[0]):
        return False
    for part, tolerance in zip(wanted, allowed, strict=True):
        match = next((x for x in given if _equal(part, x) or _near(part, x, tolerance)), None)
        if match is None:
            return False
        given.remove(match)
    return True


def _parts(latex: str) -> list[str]:
    """Splits at the commas, semicolons and words between answers that stand in no bracket."""
    text, depth, parts = _AND.sub(",", latex), 0, [""]
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _tolerances(error: Any, count: int) -> list[float]:
    try:
        values = [float(part or 0) for part in str(error or 0).split(",")]
    except ValueError as problem:
        raise DataError(f"error={error!r:.80} is no tolerance; mend the data file") from problem
    return values if len(values) == count else values[:1] * count


def _near(gold: str, answer: str, tolerance: float) -> bool:
    if not tolerance:
        return False
    wanted, given = _number(gold), _number(answer)
    if wanted is None or given is None:
        return False
    return abs(wanted - given) <= tolerance * (1 + 1e-6)  # a difference is rounded


def _number(latex: str) -> float | None:
    parsed = _parse(latex)
    value = getattr(parsed[0], "rhs", parsed[0]) if parsed else None
    try:
        return float(value.evalf())  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _without_unit(latex: str, unit: str) -> str:
    """Cuts the longest end that reads as the unit, whatever its markup."""
    plain = _UNIT_MARKUP.sub("", unit)
    if not plain or len(latex) > _LONGEST:
        return latex
    for start in range(1, len(latex)):
        value, end = latex[:start], latex[start:]
        whole = not (value[-1].isalpha() and end[0].isalpha())  # not the m of km
        balanced = value.count("{") == value.count("}")
        if whole and balanced and _UNIT_MARKUP.sub("", end) == plain:
            return value.rstrip("\\ ~")
    return latex


def _last_expression(text: str) -> str | None:
    tail = text.rstrip()[-_TAIL:]
    if len(text) > _TAIL:
        tail = tail.partition("\n")[2] or tail  # no formula whose beginning is cut off
    words = [part for part in _parsed(tail) if isinstance(part, str)]
    return (normal(words[-1]) or None) if words else None


@functools.lru_cache(maxsize=4096)
def _equal(gold: str, answer: str) -> bool:
    """Whether math-verify holds an answer to be equivalent to the gold one."""
    if gold == answer:
        return True
    if max(len(gold), len(answer)) > _LONGEST:
        return False
    if _WHOLE.fullmatch(gold) and _WHOLE.fullmatch(answer):
        return False
    word, other = _word(gold), _word(answer)
    if word and other:  # as formulas, "even" and "vene" would be equal products
        return word == other
    wanted, given, verify = list(_parse(gold)), list(_parse(answer)), _library().verify
    compare = functools.partial(verify, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(within(_SECONDS, lambda: compare(wanted, given)))


def _word(latex: str) -> str | None:
    match = _WORDS.fullmatch(latex)
    return "".join((match[1] or match[2]).lower().split()) if match else None


@functools.lru_cache(maxsize=4096)
def _parse(latex: str) -> tuple[Any, ...]:
    """Expressions, and as the last one a string, if there is anything to parse."""
    return _parsed(f"\\boxed{{{latex}}}") if len(latex) <= _LONGEST else ()


def _parsed(text: str) -> tuple[Any, ...]:
    parse = functools.partial(_library().parse, text, parsing_timeout=None)
    return tuple(within(_SECONDS, parse) or ())


@functools.cache
def _library() -> ModuleType:
    try:
        import math_verify
    except ImportError as error:
        raise ArgumentError(
            'grading mathematics needs math-verify; pip install "thicket-jax[text]"'
        ) from error
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no time limit
    return math_verify
