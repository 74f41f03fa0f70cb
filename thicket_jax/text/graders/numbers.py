r"""Numbers, as GSM8K asks for them: the text ends with `#### N`.

Two ways to find the answer, both recorded, so that what was gained in format and what in reasoning
can be told apart:

* strict: the number that follows the last `####`, in its line. It may have a currency sign before
  it and words after it, but not be the beginning of a sum (`#### 2 + 3 = 5`) or of a range.
* flexible: the strict one; else the last number of the last `\boxed{...}`; else the number of the
  last "answer is N" or "answer: N" (the one after the last equals sign of that line); else the last
  number of the text.

Item: `answer`, the right number, alone or at the end of the authors' solution after `####`;
`extraction`, `strict` (default) or `flexible`: which of the two is answer and score.

A number is exact: "72." is 72, "12.00" is 12, "$1,234" is 1234, "1/2" and ".5" are 0.5, "1.5e3" is
1500, "2 1/2" is 2.5; a per cent sign is a unit. "1,23" is not a number but two. There is no
tolerance: 0.33 is not 1/3.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from thicket_jax.errors import DataError, check_choice
from thicket_jax.text.graders.marked import boxed
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_DIGITS, _EXPONENT = 1000, 300  # what is larger is no number: exact arithmetic would not end
_STATEMENTS, _STATEMENT = 20, 200  # the last ones, and how many characters of each are looked at
_NUMBER = re.compile(
    r"""
    (?P<sign>(?<![\w.)\]}])[-−])?              # not the minus of 10-3
    (?:(?:US)?\\?[$€£¥₹]\s?(?P<inner>[-−])?)?
    (?<![A-Za-z_0-9])
    (?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]{1,9}/[0-9]))?
    (?P<integer>[0-9]+(?:,[0-9]+)*)?
    (?P<decimals>(?:(?<=[0-9])|(?<![\w.]))\.[0-9]+)?
    (?<=[0-9])
    (?:[eE](?P<exponent>[-+]?[0-9]+)(?![\w]))?
    (?:/(?P<denominator>[0-9]+)(?![0-9/]))?
    """,
    re.VERBOSE | re.ASCII,
)
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_GOES_ON = re.compile(r"[,.:]?[0-9]|\s*(?:[-−+*/×÷=^]|x\b)\s*\\?[$(]?[0-9]")
_ANSWER_IS = re.compile(r"\banswer\b[^\n0-9]{0,60}?(?:\bis\b|:|=)\s*", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_MIXED = re.compile(r"(?<=[0-9])(?=\\[dt]?frac)")
_PLAIN = {"{,}": ",", ",\\!": ",", "\\,": "", "\\%": "%", "\\!": ""}


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the number that a text ends with."""
    gold = _gold(item["answer"])
    extraction = item.get("extraction", "strict")
    check_choice("extraction", extraction, COLUMNS)
    found = {"strict": strict(text)}
    found["flexible"] = found["strict"] or flexible(text)
    scores = {name: float(answer == gold) for name, answer in found.items()}
    return Outcome(found[extraction], scores[extraction], scores)


def strict(text: str) -> str | None:
    """Returns the number after the last `####`, or None.

    Example:
      >>> strict("so 3 * 24 = 72\\n#### $1,234.50 in all")
      '1234.5'
    """
    _, mark, tail = text.rpartition("####")
    tail = re.sub(r"^([-−])[ \t]+", r"\1", tail.partition("\n")[0].strip())
    match = _NUMBER.match(tail) if mark else None
    if match is None or _GOES_ON.match(tail, match.end()):
        return None
    return _canonical(_value(match, alone=True))


def flexible(text: str) -> str | None:
    """Returns the number that a text most likely means as its answer, or None.

    Example:
      >>> flexible("The answer is 24 + 48 = 72 clips, for 2 months."), flexible("I have 12.00.")
      ('72', '12')
    """
    for marked in (boxed(text), _stated(text)):
        if marked is not None and (answer := _last(marked)):
            return answer
    return _last(text)


def _stated(text: str) -> str | None:
    """The part of the last "answer is ..." that holds the number and nothing after it."""
    for match in reversed(list(_ANSWER_IS.finditer(text))[-_STATEMENTS:]):
        statement = text[match.end() : match.end() + _STATEMENT].partition("\n")[0]
        for part in reversed(statement.split("=")):
            if number := next(_numbers(_plain(part)), None):
                return number[0]
    return None


def _last(text: str) -> str | None:
    for match in reversed(list(_numbers(_plain(text)))):
        if (answer := _canonical(_value(match))) is not None:
            return answer
    return None


def _numbers(text: str) -> Iterator[re.Match[str]]:
    return _NUMBER.finditer(text)


def _plain(text: str) -> str:
    text = _FRACTION.sub(r"\1/\2", _MIXED.sub(" ", text)) if "frac" in text else text
    for written, meant in _PLAIN.items():
        text = text.replace(written, meant)
    return text


@functools.lru_cache(maxsize=4096)
def _gold(answer: Any) -> str:
    text = str(answer)
    gold = strict(text) if "####" in text else _last(text)
    if gold is None:
        raise DataError(f"the task's answer {text!r:.80} holds no number; mend the data file")
    return gold


def _value(match: re.Match[str], alone: bool = False) -> Fraction | None:
    """The value of a match; None if it has none, or is not one number `alone`."""
    integer, whole = match["integer"] or "0", match["whole"]
    negative = match["sign"] or match["inner"]
    if len(match[0]) > _DIGITS or abs(int(match["exponent"] or 0)) > _EXPONENT:
        return None
    if "," in integer and not _THOUSANDS.fullmatch(integer):
        if alone:
            return None
        integer, whole, negative = integer.rpartition(",")[2], None, None
    value = Fraction(integer.replace(",", "") + (match["decimals"] or ""))
    value *= Fraction(10) ** int(match["exponent"] or 0)
    if match["denominator"]:
        divisor = int(match["denominator"])
        if not divisor:
            return None
        value /= divisor
        if whole and value < 1:
            value += int(whole)
    return -value if negative else value


def _canonical(value: Fraction | None) -> str | None:
    """A decimal where it ends, else p/q."""
    if value is None:
        return None
    rest, places = value.denominator, 0
    while rest % 10 == 0:
        rest, places = rest // 10, places + 1
    for prime in (2, 5):
        while rest % prime == 0:
            rest, places = rest // prime, places + 1
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    digits = f"{digits[:-places]}.{digits[-places:]}".rstrip("0") if places else digits
    return f"-{digits}" if value < 0 else digits
