r"""Countdown: reach the target with the given numbers, each used exactly as often as given.

The answer is looked for in two ways, both recorded:

* strict: the content of the last `<answer>...</answer>`;
* flexible: the strict one; else the last line that reads as an expression, or that has one in it.

An expression is made of whole numbers, + − × ÷ (also written * / · x, and `\times`, `\div`,
`\cdot`, `\frac{}{}`) and parentheses, and nothing else: no sign before a number, no `**`, no `//`,
no product without an operator. What dresses it up (tags, `$`, `\boxed{}`, markdown, a full stop, a
label with a colon) is left out. It may be one side of an equation, or of a chain of them (arrows
are equals signs), if every side has its value; one side must use exactly the given numbers.
Arithmetic is exact. There is no `eval`, and no recursion: depth and length only take time in
proportion.

Item: `numbers`, `target`; `extraction`, `strict` (default) or `flexible`: which of the two is
answer and score.

The answer to vote on is the value reached, `valid:24`, so that all right expressions are one
answer; an expression that is not allowed is `invalid:` and its text in normal form.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from thicket_jax.errors import DataError, check_choice
from thicket_jax.text.graders.marked import boxed, own_part, tagged
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_WRITTEN = {
    **dict.fromkeys(("×", "·", "⋅", "∙", "∗", "x", "X", "\\times", "\\cdot"), "*"),
    **dict.fromkeys(("÷", "\\div"), "/"),
    **dict.fromkeys(("−", "–"), "-"),
    **dict.fromkeys(("\\left", "\\right", "\\(", "\\)", "\\[", "\\]", "\\,", "$"), ""),
    **dict.fromkeys(("[", "{", "\\{"), "("),
    **dict.fromkeys(("]", "}", "\\}"), ")"),
    **dict.fromkeys(("==", "→", "⇒", "=>", "->", "\\to", "\\rightarrow"), "="),
}
_OPERATOR = re.compile("|".join(re.escape(sign) for sign in sorted(_WRITTEN, reverse=True)))
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()=])")
_WHOLE = re.compile(r"(=\s*[0-9]+)\.0+(?=\s*(?:=|$))")  # a value that is whole
_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_DRESSED = re.compile(r"^(?:[A-Za-z]|result|total|target)\s*=(?=[^=])", re.IGNORECASE)
_AROUND = " \t\r\n*_`.,;!✓✔✅\"'"
_BULLET = re.compile(r"^\s*(?:[-*•]|[0-9]+[.)])\s+")
_RUN = re.compile(r"(?:[-+*/()=\[\]{}×÷·⋅∙∗−–xX0-9\s]|\\(?:times|div|cdot)|\.0)+")  # in prose
_MOST_DIGITS, _MOST_SIDES = 20, 20  # of a claim and of a chain, so that arithmetic stays small
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
_SHOWN = 200  # characters of an invalid expression that are kept


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the expression that a text gives as its answer."""
    numbers, target = _puzzle(item)
    extraction = item.get("extraction", "strict")
    check_choice("extraction", extraction, COLUMNS)
    found = {"strict": _first_found(tagged, text)}
    found["flexible"] = found["strict"]
    if found["flexible"] is None:
        found["flexible"] = _first_found(_last_expression, text)
    answers = {name: _canonical(answer, numbers) for name, answer in found.items()}
    right = f"valid:{target}"
    scores = {name: float(answer == right) for name, answer in answers.items()}
    return Outcome(answers[extraction], scores[extraction], scores)


def value(expression: str, numbers: list[int]) -> Fraction | None:
    """Returns the value of an expression over exactly these numbers, or None if it is not one.

    Example:
      >>> value("(1 + 2) × 4 = 12", [4, 2, 1]), value("4 ** 2", [4, 2]), value("4 / 0", [4, 0])
      (Fraction(12, 1), None, None)
    """
    sides = _sides(_tokens(_undressed(expression)) or [])
    wanted = sorted(map(str, numbers))
    used = [sorted(_digits(token) for token in side if token.isdigit()) for side in sides]
    if wanted not in used or len(sides) > _MOST_SIDES:
        return None
    for found in used:  # before any arithmetic, which is small after it
        if found != wanted and (
            len(found) > 2 * len(wanted) or any(len(digits) > _MOST_DIGITS for digits in found)
        ):
            return None
    values = {_evaluate(side) for side in sides}
    return values.pop() if len(values) == 1 else None


def _sides(tokens: list[str]) -> list[list[str]]:
    """The sides of a chain of equations."""
    sides: list[list[str]] = [[]]
    for token in tokens:
        if token == "=":
            sides.append([])
        else:
            sides[-1].append(token)
    return sides


def _first_found(find: Callable[[str], str | None], text: str) -> str | None:
    """What is found before a text runs on into a next puzzle; else in all of it."""
    found = find(own_part(text))
    return find(text) if found is None else found


def _undressed(expression: str) -> str:
    """An expression without what stands around it."""
    inner = boxed(expression)
    text = (expression if inner is None else inner).rpartition(":")[2]
    text = _FRACTION.sub(r"((\1)/(\2))", _TAG.sub(" ", text))
    text = text.replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    text = _WHOLE.sub(r"\1", text.replace("$", "").strip(_AROUND))
    return _DRESSED.sub("", text).strip(_AROUND)


def _puzzle(item: Mapping[str, Any]) -> tuple[list[int], Fraction]:
    try:
        return [int(number) for number in item["numbers"]], Fraction(item["target"])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"numbers={item['numbers']!r:.80} and target={item['target']!r:.80} must be whole "
            "numbers; mend the data file"
        ) from error


def _canonical(answer: str | None, numbers: list[int]) -> str | None:
    if answer is None or not answer.strip():
        return None
    reached = value(answer, numbers)
    if reached is not None:
        return f"valid:{reached}"
    text = "".join(_OPERATOR.sub(_meant, _undressed(answer)).split())
    return f"invalid:{text[:_SHOWN]}"


def _last_expression(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        bare = _BULLET.sub("", line)
        for part in (_undressed(bare), *reversed(_RUN.findall(bare))):
            tokens = _tokens(part) or []
            counted = sum(token.isdigit() for token in tokens)
            if counted > 1 and any(token in _RANK for token in tokens):
                return part.strip(_AROUND + "=")
    return None


def _tokens(expression: str) -> list[str] | None:
    """The tokens, in normal form; None if anything else is in the text."""
    text = _OPERATOR.sub(_meant, expression).rstrip()
    tokens, end = [], 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            return None
        tokens.append(match[1])
        end = match.end()
    return tokens


def _meant(match: re.Match[str]) -> str:
    return _WRITTEN[match[0]]


def _digits(token: str) -> str:
    return token.lstrip("0") or "0"


def _evaluate(tokens: list[str]) -> Fraction | None:
    """Two stacks instead of recursion; None for wrong syntax or a division by zero."""
    values: list[Fraction] = []
    pending: list[str] = []
    wanted = True  # a number or an opening parenthesis, not an operator
    try:
        for token in tokens:
            if (token.isdigit() or token == "(") != wanted:
                return None
            if token.isdigit():
                values.append(Fraction(token))
                wanted = False
            elif token == "(":
                pending.append(token)
            else:
                _apply(values, pending, 0 if token == ")" else _RANK[token])
                if token != ")":
                    pending.append(token)
                    wanted = True
                elif not pending or pending.pop() != "(":
                    return None
        if wanted:
            return None
        _apply(values, pending, 0)
    except ZeroDivisionError:
        return None
    return None if pending else values[0]


def _apply(values: list[Fraction], pending: list[str], rank: int) -> None:
    """Applies the pending operators of at least this rank, back to a parenthesis."""
    while pending and pending[-1] != "(" and _RANK[pending[-1]] >= rank:
        sign, right, left = pending.pop(), values.pop(), values.pop()
        if sign == "+":
            values.append(left + right)
        elif sign == "-":
            values.append(left - right)
        elif sign == "*":
            values.append(left * right)
        else:
            values.append(left / right)
