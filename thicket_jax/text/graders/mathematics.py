r"""Mathematical answers in LaTeX: MATH-500, OlympiadBench; equivalence by math-verify.

Two ways to find the answer, both recorded:

* strict: the content of the last `\boxed{...}` whose braces balance;
* flexible: the strict one; else the content of the last `<answer>...</answer>`; else the last
  expression that math-verify finds in the last lines, without what the text denies ("not 5").

A text that runs on into a next question is read up to there, if an answer stands before it.

Numbers are equal exactly: 0.333 is not 1/3, and what is computed agrees to 40 digits of its size.
Expressions of variables are equal if they agree wherever both are real. Numbers in different bases
differ, and so do answers that both name a unit, another one; one that names none is not wrong.

The answer to vote on is its LaTeX in a normal form of spacing; `same` makes classes of equivalent
ones, which name the same unit or base, or none, and of which none is a tuple and another a set.
Answers of several parts, between commas, are right in any order.

Item: `answer` or `final_answer`, a string or a list of the parts, in LaTeX, or the authors'
solution with the answer boxed; `extraction`, `strict` (default) or `flexible`: which of the two is
answer and score; `unit`, which the answer may be followed by; `error`, the absolute tolerance of a
number, or of each part, between commas.

A parse or a comparison that takes longer than 3 s finds nothing, and the outcome says that it ran
into a time limit. That limit is an alarm, see `alarm`: what it cannot stop, the limit of the worker
process does.
"""

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from thicket_jax.errors import ArgumentError, DataError, check_choice
from thicket_jax.text.graders import denied
from thicket_jax.text.graders.alarm import within
from thicket_jax.text.graders.latex import (
    LONGEST,
    as_word,
    assigned,
    based,
    bracketed,
    decimal,
    in_radians,
    normal,
    split_parts,
    split_unit,
    without_unit,
)
from thicket_jax.text.graders.marked import boxed, own_part, tagged
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_SECONDS = 3  # for one parse or one comparison
_TAIL = 1000  # characters at the end of a text in which an unboxed answer is looked for
_AND = re.compile(r"\s*,?\s*(?:\\(?:text|mathrm|mbox)\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*")
_DIGITS, _AGREE = 50, 40  # that numbers are computed to, and that must agree
_POINTS = (0.7, 1.3, 2.9, -0.6, -1.7, 0.31, -3.1, 5.3)  # values of the first variable
_LEAST_POINTS = 3  # at which two expressions must both be real
_STATED = re.compile(
    r"\$[^$\n]{1,200}\$|\\\([^\n]{1,200}?\\\)"
    r"|(?<![\w.$\\{^*/+=-])-?[0-9](?:[0-9.,/]*[0-9])?(?![\w$^*/+=-]|\s*[-+*/^=]\s*[0-9(])"
)  # a formula, or a number that stands alone
_late: list[bool] = []  # what ran into the time limit since the last text
_T = TypeVar("_T")
_MARKDOWN = re.compile(r"(?<!\w)(?:\*\*+|__+|`+)|(?:\*\*+|__+|`+)(?!\w)")


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
    _late.clear()
    own = own_part(text)
    marked = boxed(own) or boxed(text)
    found = {"strict": normal(marked or "") or None}
    found["flexible"] = found["strict"] or _last_expression(own) or _last_expression(text)
    right = {answer: answer is not None and _right(gold, answer, item) for answer in found.values()}
    scores = {name: float(right[answer]) for name, answer in found.items()}
    return Outcome(found[extraction], scores[extraction], scores, timed_out=bool(_late))


def same(a: str, b: str) -> bool:
    """Whether two answers are equivalent, units and bases included; either may come first.

    Example:
      >>> same("x=5", "5"), same("(1,2)", "(2,1)"), same("5", r"5\\text{ km}")
      (True, False, False)
    """
    if split_unit(a)[1] != split_unit(b)[1] or based(a) != based(b):
        return a == b
    if {_shape(a), _shape(b)} == {"tuple", "set"}:  # a list without brackets may be right as either
        return False
    first, second = sorted((a, b))
    return _equal(first, second) or _equal(second, first)


def _shape(latex: str) -> str:
    """What several parts are: a set, without brackets too; a tuple, or interval; else nothing."""
    value = assigned(latex)
    found = bracketed(value)
    if found is None:
        return "set" if len(split_parts(value)) > 1 else ""
    if found[0] == "\\{":
        return "set"
    return "tuple" if len(split_parts(found[1])) > 1 else ""


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
        gold = [without_unit(part, unit) for part in gold]
        answer = without_unit(answer, unit)
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
    return split_parts(_AND.sub(",", latex))


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


def _last_expression(text: str) -> str | None:
    marked = tagged(text)
    if marked is not None and normal(marked):
        return normal(marked)
    text = _MARKDOWN.sub(" ", text)
    text = _without_denied(text)
    tail = text.rstrip()[-_TAIL:]
    if len(text) > _TAIL:
        tail = tail.partition("\n")[2] or tail  # no formula whose beginning is cut off
    words = [part for part in _parsed(tail) if isinstance(part, str)]
    return (normal(words[-1]) or None) if words else None


def _without_denied(text: str) -> str:
    """A text without the formulas and numbers that it denies."""
    spans = [match.span() for match in _STATED.finditer(text)]
    found = zip(spans, denied.each(text, spans), strict=True)
    for begin, end in reversed([span for span, is_denied in found if is_denied]):
        text = f"{text[:begin]} {text[end:]}"
    return text


def _within(function: Callable[[], Any]) -> Any:
    """What a function returns, or None if it takes too long, which is kept in mind."""
    found = within(_SECONDS, function)
    if found is None:
        _late.append(True)
    return found


def _remembered(function: Callable[..., _T]) -> Callable[..., _T]:
    """Remembers what a function returned, and whether it ran into the time limit."""

    @functools.lru_cache(maxsize=4096)
    def run(*args: str) -> tuple[_T, bool]:
        before = len(_late)
        return function(*args), len(_late) > before

    @functools.wraps(function)
    def call(*args: str) -> _T:
        found, late = run(*args)
        if late:
            _late.append(True)
        return found

    return call


@_remembered
def _equal(gold: str, answer: str) -> bool:
    """Whether an answer is equivalent to the gold one; units and bases may be left out in it."""
    if gold == answer:
        return True
    if max(len(gold), len(answer)) > LONGEST:
        return False
    bases = based(gold), based(answer)
    if any(bases):
        return _same_digits(*bases, gold, answer)
    (wanted, unit), (given, other) = split_unit(gold), split_unit(answer)
    if unit and other and unit != other:
        return False
    if wanted and given and _equal_values(assigned(wanted), assigned(given)):
        return True
    if "=" in gold and "=" in answer and _verified(gold, answer):
        return True
    return "percent" in (unit, other) and unit != other and _verified(gold, answer)


def _same_digits(
    base: tuple[str, int] | None, other: tuple[str, int] | None, gold: str, answer: str
) -> bool:
    """Whether numbers have the same digits, and not different bases."""
    if base and other:
        return base == other
    digits, plain = (base[0], answer) if base else (other[0] if other else "", gold)
    return plain.lower().lstrip("0") == digits


def _equal_values(gold: str, answer: str) -> bool:
    """Whether two answers without units are equivalent: words, numbers, tuples, or formulas."""
    if gold == answer:
        return True
    numbers = decimal(gold), decimal(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    word, other = as_word(gold), as_word(answer)
    if word and other:  # as formulas, "even" and "vene" would be equal products
        return word == other
    one, two = bracketed(gold), bracketed(answer)
    if one and two and (one[0], one[2]) == (two[0], two[2]):
        parts, others = split_parts(one[1]), split_parts(two[1])
        if len(parts) > 1 and one[0] != "\\{":
            return len(parts) == len(others) and all(map(_equal, parts, others))
        if one[0] == "\\{" and len(parts) == len(others) > 0:
            return _in_any_order(parts, others)
    if one and two and (one[0] == "\\{") != (two[0] == "\\{") and "," in one[1] + two[1]:
        return False  # a set is no tuple
    scalars = _scalar(gold), _scalar(answer)
    if scalars[0] is not None and scalars[1] is not None:
        return bool(_within(lambda: _agree(*scalars)))
    return _verified(gold, answer)


def _in_any_order(parts: Sequence[str], others: Sequence[str]) -> bool:
    left = list(others)
    for part in parts:
        match = next((other for other in left if _equal(part, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _scalar(latex: str) -> Any:
    """The expression that an answer is, its decimals exact; None for sets, relations and so on."""
    import sympy

    plain = decimal(latex)
    if plain is not None:
        return sympy.Rational(plain.numerator, plain.denominator)
    parsed = _parse(latex)
    if not parsed or not isinstance(parsed[0], sympy.Expr) or "," in latex:
        return None
    floats = {x: sympy.Rational(str(x)) for x in parsed[0].atoms(sympy.Float)}
    return parsed[0].xreplace(floats)


def _agree(one: Any, other: Any) -> bool:
    """Whether two expressions have one value; those of variables, wherever both are real."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if [str(symbol) for symbol in symbols] == ["i"]:  # alone it is no variable
        one, other = (_with_imaginary_unit(x, symbols[0]) for x in (one, other))
        symbols = []
    if one == other:
        return True
    if not symbols:
        return _close(one.evalf(_DIGITS), other.evalf(_DIGITS))
    compared = 0
    for i in range(len(_POINTS)):
        values = {x: _POINTS[(i + 3 * j) % len(_POINTS)] for j, x in enumerate(symbols)}
        exact = {x: _exact(value) for x, value in values.items()}
        found = [x.subs(exact).evalf(_DIGITS) for x in (one, other)]
        if not all(x.is_number and x.is_real and x.is_finite for x in found):
            continue
        if not _close(*found):
            return False
        compared += 1
    return compared >= _LEAST_POINTS


def _with_imaginary_unit(expression: Any, symbol: Any) -> Any:
    import sympy

    return expression.subs(symbol, sympy.I)


def _exact(value: float) -> Any:
    import sympy

    return sympy.Rational(str(value))


def _close(one: Any, other: Any) -> bool:
    if one == other:
        return True
    if not (one.is_finite and other.is_finite):
        return False
    size = max(abs(one), abs(other))
    return bool(abs(one - other) <= size * 10**-_AGREE)


def _verified(gold: str, answer: str) -> bool:
    """Whether math-verify holds an answer to be equivalent to the gold one."""
    wanted, given, verify = list(_parse(gold)), list(_parse(answer)), _library().verify
    compare = functools.partial(
        verify,
        float_rounding=_AGREE,
        numeric_precision=_DIGITS,
        allow_set_relation_comp=True,
        timeout_seconds=None,
    )
    return bool(_within(lambda: compare(wanted, given)))


@_remembered
def _parse(latex: str) -> tuple[Any, ...]:
    """Expressions, and as the last one a string, if there is anything to parse."""
    if len(latex) > LONGEST:
        return ()
    return _parsed(f"\\boxed{{{in_radians(latex)}}}")


def _parsed(text: str) -> tuple[Any, ...]:
    parse = functools.partial(_library().parse, text, parsing_timeout=None)
    return tuple(_within(parse) or ())


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
