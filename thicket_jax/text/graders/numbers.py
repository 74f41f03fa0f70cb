r"""Numbers, as GSM8K asks for them: the text ends with `#### N`.

Two ways to find the answer, both recorded, so that what was gained in format and what in reasoning
can be told apart:

* strict: the number that follows the last `####`, in its line. It may be dressed up (`**72**`,
  `\(72\)`, `\boxed{72}`, `x = 72`, `Answer: 72`, `USD 72`) and have words after it, but not be the
  beginning of a sum (`#### 2 + 3 = 5`), of a range, or of several answers (`#### 3 or 4`). A
  heading (`#### Explanation`) is passed over.
* flexible: the strict one; else the last number of the last `\boxed{...}`; else the number of the
  last "answer is N" or "answer: N" (the one after the last equals sign of that line); else the last
  number of the text. A number that is denied ("isn't 5") is none of these; two answers are none.

A text that runs on into a next question is read up to there, if an answer stands before it.

Item: `answer`, the right number, alone or at the end of the authors' solution after `####`;
`extraction`, `strict` (default) or `flexible`: which of the two is answer and score.

A number is exact: "72." is 72, "12.00" is 12, "$1,234" is 1234 (as "1 234" is after the mark),
"1/2" and ".5" are 0.5, "1.5e3" is 1500 as "1.5 \times 10^3" is, "2 1/2" is 2.5; a per cent sign is
a unit. "1,23" is not a number but two. There is no tolerance: 0.33 is not 1/3.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from thicket_jax.errors import DataError, check_choice
from thicket_jax.text.graders import denied
from thicket_jax.text.graders.marked import boxed, own_part
from thicket_jax.text.grading import Outcome

COLUMNS = ("strict", "flexible")

_DIGITS, _EXPONENT = 1000, 300  # what is larger is no number: exact arithmetic would not end
_STATEMENTS, _STATEMENT = 20, 200  # the last ones, and how many characters of each are looked at
_NUMBER = re.compile(
    r"""
    (?P<sign>(?<![\w.)\]}])[-−–])?              # not the minus of 10-3
    (?:(?:US)?\\?[$€£¥₹]\s?(?P<inner>[-−–])?)?
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
_SIGNS = str.maketrans("−–", "--")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_SPACED = re.compile(r"^[-−–]?[1-9][0-9]{0,2}(?:[ \u00a0\u202f][0-9]{3})+(?![0-9/])")
_OPENED = r"\\?[$({\[]*\s*"  # what a further number may stand behind
_GOES_ON = re.compile(
    rf"""[,.:]?[0-9]
    |[)\]}}]*\s*(?:[-−–—+*/×÷·=^~]|\*\*|\\(?:times|cdot|div|pm)|x\b)\s*{_OPENED}[0-9\\]
    |\s*(?:[π√^]|\\(?:pi|sqrt|[dt]?frac)(?![A-Za-z]))""",
    re.VERBOSE,
)
_SECOND = re.compile(
    rf"""(?:[)\]}}*$`]*\s*[,;/&]|[^0-9\n]*?\b(?:or|and)\b|[^0-9\n]*?\\text\{{\s*(?:or|and)\s*\}}
    |\s*(?:to|through)\s)\s*(?:(?:maybe|perhaps|possibly|even|also)\s+)?(?:[A-Za-z]\w*\s*=\s*)?
    {_OPENED}[-−–]?\$?[0-9]""",
    re.VERBOSE,
)
_LABEL = r"(?:the\s+)?(?:(?:final|correct|right)\s+)?(?:answer|ans\b\.?|result|total|solution)"
_DRESS = re.compile(
    rf"""(?:~~[^~\n]*~~|</?[a-z]{{1,6}}>|≈|\\approx\b
    |(?:about|approximately|around|roughly|exactly|only|just|nearly)\s
    |\\text\{{[^{{}}\n]{{0,40}}\}}\s*=|[A-Za-z][\w ]{{0,40}}=(?!=)|[*_`"'“”‘’(){{\[$=:+\s]
    |\\[(\[$ ,]|\\(?:boxed|left|text[a-z]*|math[a-z]*)\s*\{{?|<answer>
    |{_LABEL}[*_]*\s*(?::|=|\bis\b)|ans\.|(?:USD|EUR|GBP|INR|JPY|CNY|CAD|AUD|CHF|Rs\.?)(?![A-Za-z]))*""",
    re.VERBOSE | re.IGNORECASE,
)
_HEADING = re.compile(
    rf"""(?![*_]*{_LABEL}\b)[*_]*[A-Za-z](?:[^0-9\n]*$|[A-Za-z ]*[*_]*:)
    |[*_]*(?:step|part|case|method|section|example|question|problem|note)\s[0-9]+\b""",
    re.VERBOSE | re.IGNORECASE,
)
_ANSWER_IS = re.compile(r"\banswer\b[^\n0-9]{0,60}?(?:\bis\b|:|=)\s*", re.IGNORECASE)
_FRACTION = re.compile(
    r"\\[dt]?frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
)
_MIXED = re.compile(r"(?<=[0-9])(?=\\[dt]?frac)")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_POWER = re.compile(
    r"(?:(?<=[0-9])\s*(?:\\times|\\cdot|[×·*x])\s*|(?<![\w.,^/]))10\s*"
    r"(?:\^\s*[{(]*\s*([-−–+]?[0-9]+)\s*[)}]*|([⁻⁺]?[⁰¹²³⁴-⁹]+))"
)
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
      >>> strict("so 3 * 24 = 72\\n#### **$1,234.50** in all")
      '1234.5'
    """
    own = own_part(text)
    found = _after_mark(own)
    return _after_mark(text) if found is None and "####" not in own else found


def _after_mark(text: str) -> str | None:
    line = _marked_line(text)
    return None if line is None else _alone(line)


def _marked_line(text: str) -> str | None:
    """What follows the last `####` in its line, headings passed over."""
    for before, part in reversed(list(itertools.pairwise(text.split("####")))):
        line = _plain(part.partition("\n")[0]).strip()
        closes = not line and "\n" not in before and before.strip()  # "#### 72 ####"
        if not closes and not _HEADING.match(line):
            return line
    return None


def _alone(line: str) -> str | None:
    """The number that a line is, but for what dresses it up and words after it."""
    line = _undressed(line)
    line = re.sub(r"^([-−–])[ \t]+", r"\1", line)
    line = _SPACED.sub(lambda match: re.sub(r"\s", "", match[0]), line)
    match = _NUMBER.match(line)
    if match is None or denied.after(line, match.end()):
        return None
    if _GOES_ON.match(line, match.end()) or _SECOND.match(line, match.end()):
        return None
    return _canonical(_value(match, alone=True))


def _undressed(line: str) -> str:
    match = _DRESS.match(line)
    return line[match.end() :] if match else line


def flexible(text: str) -> str | None:
    """Returns the number that a text most likely means as its answer, or None.

    Example:
      >>> flexible("The answer is 24 + 48 = 72 clips, for 2 months."), flexible("I have 12.00.")
      ('72', '12')
    """
    own = own_part(text)
    found = _likely(own)
    return _likely(text) if found is None and next(_numbers(own), None) is None else found


def _likely(text: str) -> str | None:
    for marked in (_marked_line(text), boxed(text)):
        if marked is None:
            continue
        if _several(_plain(marked)):
            return None
        if answer := _last(marked):
            return answer
    for statement in _statements(text):
        if _several(statement):
            return None
        for part in reversed(statement.split("=")):
            if number := next(_meant_numbers(part), None):
                return _canonical(_value(number)) or _last(number[0])
    return _last(text)


def _several(line: str) -> bool:
    """Whether a line begins with two answers."""
    line = _undressed(line)
    match = _NUMBER.match(line)
    if match is None or _THOUSANDS.match(line):
        return False
    return re.match(r"[^0-9\n]{0,20}?\b(?:or|and)\b", line[match.end() :]) is not None and (
        _SECOND.match(line, match.end()) is not None
    )


def _statements(text: str) -> Iterator[str]:
    """What follows "answer is", the last one first."""
    for match in reversed(list(_ANSWER_IS.finditer(text))[-_STATEMENTS:]):
        said = text[match.end() : match.end() + _STATEMENT].partition("\n")[0]
        yield _plain(said)


def _last(text: str) -> str | None:
    for match in reversed(list(_meant_numbers(_plain(text)))):
        if (answer := _canonical(_value(match))) is not None:
            return answer
    return None


def _meant_numbers(text: str) -> Iterator[re.Match[str]]:
    """The numbers of a text that it does not deny."""
    found = list(_numbers(text))
    for match, is_denied in zip(found, denied.each(text, [m.span() for m in found]), strict=True):
        if not is_denied:
            yield match


def _numbers(text: str) -> Iterator[re.Match[str]]:
    return _NUMBER.finditer(text)


def _plain(text: str) -> str:
    """A text with fractions and powers of ten as `_NUMBER` reads them."""
    if "frac" in text:
        text = _FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", _MIXED.sub(" ", text))
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text).replace("⁄", "/")
    text = _POWER.sub(_exponent, text)
    for written, meant in _PLAIN.items():
        text = text.replace(written, meant)
    return text


def _exponent(match: re.Match[str]) -> str:
    power = unicodedata.normalize("NFKC", match[1] or match[2]).translate(_SIGNS)
    return f"e{power}" if match[0][0] != "1" else f"1e{power}"


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
