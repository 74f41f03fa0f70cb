r"""Countdown: reach the target with the given numbers, each used exactly as often as given.

The answer is looked for in two ways, both recorded:

* strict: the content of the last `<answer>...</answer>`;
* flexible: the strict one; else the last line that reads as an expression, after a label that ends
  with a colon, and without tags, `$`, `\boxed{}` and markdown around it.

An expression is made of whole numbers, + − × ÷ (also written * / · x, and `\times`, `\div`,
`\cdot`) and parentheses, and nothing else: no sign before a number, no `**`, no `//`, no product
without an operator. It may end with `= N` if N, a whole number, is its value. Arithmetic is exact.
There is no `eval`, and no recursion: depth and length only take time in proportion.

Item: `numbers`, `target`; `extraction`, `strict` (default) or `flexible`: which of the two is
answer and score.

The answer to vote on is the value reached, `valid:24`, so that all right expressions are one
answer; an expression that is not allowed is `invalid:` and its text in normal form.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from thicket_jax.errors import DataError, check_choice
from thicket_jax.text.graders.marked import boxed, tagged
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_WRITTEN = {
    **dict.fromkeys(("×", "·", "⋅", "∙", "x", "X", "\\times", "\\cdot"), "*"),
    **dict.fromkeys(("÷", "\\div"), "/"),
    **dict.fromkeys(("−", "–"), "-"),
    **dict.fromkeys(("\\left", "\\right", "\\(", "\\)", "\\[", "\\]", "$"), ""),
}
_OPERATOR = re.compile("|".join(re.escape(sign) for sign in sorted(_WRITTEN, reverse=True)))
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()=])")
_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
_SHOWN = 200  # characters of an invalid expression that are kept


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the expression that a text gives as its answer."""
    numbers, target = _puzzle(item)
    extraction = item.get("extraction", "strict")
    check_choice("extraction", extraction, COLUMNS)
    found = {"strict": tagged(text)}
    found["flexible"] = _last_expression(text) if found["strict"] is None else found["strict"]
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
    tokens = _tokens(expression)
    if tokens is None:
        return None
    claim = None
    if len(tokens) > 2 and tokens[-2] == "=":
        tokens, claim = tokens[:-2], tokens[-1]
    used = sorted(_digits(token) for token in tokens if token.isdigit())
    if used != sorted(map(str, numbers)):  # before any arithmetic, which is small after it
        return None
    result = _evaluate(tokens)
    if result is None or (claim is not None and _digits(claim) != str(result)):
        return None
    return result


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
    text = "".join(_OPERATOR.sub(_meant, answer).split())
    return f"invalid:{text[:_SHOWN]}"


def _last_expression(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        line = _TAG.sub(" ", line)
        inner = boxed(line)
        part = (line if inner is None else inner).rpartition(":")[2].strip(" \t*`.,;")
        tokens = _tokens(part) or []
        counted = sum(token.isdigit() for token in tokens)
        if counted > 1 and any(token in _RANK for token in tokens):
            return part
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
            if (token.isdigit() or token == "(") != wanted or token == "=":
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
        _apply(values, pending, 0)
    except ZeroDivisionError:
        return None
    return None if wanted or pending else values[0]


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
