r"""How answers in LaTeX are written: spacing, units, bases, decimals; nothing is computed."""

import re
from fractions import Fraction

_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|(?<!\\)\\[,!;: ]|~|\\q?quad(?![A-Za-z])"
)
_GROUPED = re.compile(r"(?<=[0-9])(?:,\s*\\!|\{,\})\s*(?=[0-9]{3}(?![0-9]))")
_EMPTY = re.compile(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}")
_BOLD = re.compile(
    r"\\(?:mathbf|textbf|boldsymbol)\s*\{([^{}]*)\}|\\(?:text|mathrm)\{([-0-9., ]+)\}"
)
_IN_WORDS = re.compile(r"\\text\{\s*(-?[0-9][0-9.,/]*)\s+([A-Za-z][^{}]*)\}")
_KEPT_SPACE = re.compile(
    r"(\\(?:text|mathrm|mbox)[a-z]*\{[^{}]*\}|\\[A-Za-z]+ (?=[A-Za-z])|, (?=[0-9]{3}(?![0-9])))| "
)
_ASSIGNED = re.compile(
    r"(?:[A-Za-z](?:_\{?\w+\}?|\([a-z]\))?|\\text\{[^{}]*\})\s*="
    r"|\\text\{[^{}]*\b(?:is|answer)[:\s]*\}(?=.)"
)
_RELATION = re.compile(r"[=<>]|\\(?:lt|gt|leq?|geq?|neq?|in|equiv|approx)(?![A-Za-z])")

_UNIT = re.compile(
    r"(?P<value>.*[0-9A-Za-z)}])(?:\\?\s)*"
    r"(?:\\(?:text|mathrm|mbox|operatorname|rm)[a-z]*\s*\{\s*(?P<named>[^{}]*[A-Za-z%°][^{}]*?)\s*\}"
    r"(?P<power>\^\{?-?[0-9]+\}?)?|(?P<sign>\^\{?\\circ\}?|°|\\?%)|(?<![A-Za-z\\])(?P<plain>[A-Za-z]+))"
)
_DOLLARS = re.compile(r"\\\$\s*(?=[-0-9.])")
_NAMES = {
    **dict.fromkeys(("^\\circ", "^{\\circ}", "°", "degree", "deg"), "degree"),
    **dict.fromkeys(("%", "\\%", "percent", "per cent"), "percent"),
    **dict.fromkeys(("dollar", "usd"), "dollar"),
    **dict.fromkeys(("m", "meter", "metre"), "m"),
    **dict.fromkeys(("km", "kilometer", "kilometre"), "km"),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("g", "gram"), "g"),
    **dict.fromkeys(("kg", "kilogram"), "kg"),
    **dict.fromkeys(("s", "sec", "second"), "s"),
    **dict.fromkeys(("min", "minute"), "min"),
    **dict.fromkeys(("h", "hr", "hour"), "h"),
    **dict.fromkeys(("l", "liter", "litre"), "l"),
    **dict.fromkeys(("in", "inch", "inche"), "in"),
    **dict.fromkeys(("ft", "foot", "feet"), "ft"),
    **dict.fromkeys(("mi", "mile"), "mi"),
    **dict.fromkeys(("rad", "radian"), "rad"),
    **dict.fromkeys(("unit", "square unit", "cubic unit"), ""),  # says nothing
}
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])[^+=-]*$")  # its degrees are no unit
_POWERED = re.compile(r"(square|sq|cubic|cu)\.?\s+(?!units?$)")
_POWERS = {"sq": 2, "cu": 3}
_BASED = re.compile(
    r"\(?(?:\\(?:text|mathrm)\{)?(?P<digits>[0-9A-Fa-f]+)\}?\)?"
    r"_\{?(?:\\(?:text|mathrm)[a-z]*\{)?\s*(?P<base>[0-9]{1,2}|[a-z]+)\s*\}?\}?"
)
_BASES = {
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "eleven": 11, "twelve": 12, "hexadecimal": 16, "sixteen": 16, "binary": 2},
}
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]{1,3}")
_REPEATING = re.compile(
    r"(?P<sign>-?)(?P<whole>[0-9]*)\.(?P<first>[0-9]*)\\(?:overline|bar)\s*\{?(?P<again>[0-9]+)\}?"
)
_MOST_DIGITS = 300
_OPENING, _CLOSING = "([{", ")]}"
_WORDS = re.compile(r"\\text[a-z]*\{\s*([^{}\\]*[A-Za-z]{2}[^{}\\]*)\}|([A-Za-z][A-Za-z ]{3,})")
_UNIT_MARKUP = re.compile(
    r"\\(?:text|mathrm|mbox|rm|operatorname)(?![A-Za-z])|\\[,!;: ]|[{}~$\s\\]"
)
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(-?[0-9.]+)\s*(?:\^\{?\\circ\}?|°)\s*[)}]?"
)
LONGEST = 1000  # characters of an answer that is looked into; a longer one equals itself alone


def normal(latex: str) -> str:
    r"""Returns LaTeX without what only spaces it, in one spelling of fractions.

    Example:
      >>> normal(r" $\left( 3, \dfrac{\pi r}{2} \right)$. ")
      '(3,\\frac{\\pi r}{2})'
    """
    latex = _SPACING.sub(" ", _GROUPED.sub(",", latex))
    latex = _EMPTY.sub(r"\\emptyset", _BOLD.sub(lambda match: match[1] or match[2] or "", latex))
    latex = _IN_WORDS.sub(r"\1\\text{ \2}", latex)
    latex = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", latex).replace("−", "-")
    latex = " ".join(latex.split()).strip("$* `").removesuffix(".").rstrip("$* `\\")
    return _KEPT_SPACE.sub(lambda match: match[1] or "", latex)


def split_unit(latex: str) -> tuple[str, str]:
    r"""Splits an answer in its value and the name of its unit, which is empty where it has none.

    Example:
      >>> split_unit(r"5\text{ kilometers}"), split_unit(r"90^\circ"), split_unit(r"\text{even}")
      (('5', 'km'), ('90', 'degree'), ('\\text{even}', ''))
    """
    if dollars := _DOLLARS.match(latex):
        return latex[dollars.end() :], "dollar"
    match = _UNIT.fullmatch(latex)
    if match is None or _ANGLE.search(match["value"]):
        return latex, ""
    written = match["named"] or match["sign"] or match["plain"]
    words = " ".join(written.split()).strip(". ").lower()
    power = match["power"] or ""
    if (more := _POWERED.match(words)) and not power:  # square centimeters
        words, power = words[more.end() :], f"^{_POWERS[more[1][:2]]}"
    name = words if words in _NAMES else words.removesuffix("s")
    if match["plain"] and name not in _NAMES:  # a product of variables, or a word
        return latex, ""
    power = re.sub(r"[{}]", "", power)
    return match["value"].rstrip("\\ "), _NAMES.get(name, name) + power


def based(latex: str) -> tuple[str, int] | None:
    r"""Returns the digits and the base of a number that names its base, or None.

    Example:
      >>> based(r"52_{\text{8}}"), based("(1a)_{sixteen}"), based("x_1")
      (('52', 8), ('1a', 16), None)
    """
    match = _BASED.fullmatch(latex)
    if match is None or not any(map(str.isdigit, match["digits"])):
        return None
    name = match["base"]
    base = int(name) if name.isdigit() else _BASES.get(name, 0)
    digits = match["digits"].lower().lstrip("0") or "0"
    valid = 2 <= base <= 36 and all(int(digit, 36) < base for digit in digits)
    return (digits, base) if valid else None


def decimal(latex: str) -> Fraction | None:
    """Returns the value of a number that is written with digits alone, or None."""
    if _SCIENTIFIC.fullmatch(latex):
        return Fraction(latex)
    if (match := _REPEATING.fullmatch(latex)) and len(latex) <= _MOST_DIGITS:
        first, again = match["first"], match["again"]
        nines = (10 ** len(again) - 1) * 10 ** len(first)
        value = Fraction(int(first + again) - int(first or 0), nines) + int(match["whole"] or 0)
        return -value if match["sign"] else value
    if not latex or len(latex) > _MOST_DIGITS or not _DECIMAL.fullmatch(latex):
        return None
    plain = latex.replace(",", "")
    return Fraction(plain) if plain.strip("+-") else None


def assigned(latex: str) -> str:
    """Returns an answer without the variable that it is the value of: "x=5" is "5"."""
    match = _ASSIGNED.match(latex)
    if match is None or _RELATION.search(latex, match.end()):
        return latex
    return latex[match.end() :].strip()


def bracketed(latex: str) -> tuple[str, str, str] | None:
    r"""Returns the opening bracket, the content and the closing one where they stand around it all.

    Example:
      >>> bracketed("[1, 2)"), bracketed("(1) + (2)")
      (('[', '1, 2', ')'), None)
    """
    opening = next((mark for mark in ("\\{", "(", "[") if latex.startswith(mark)), None)
    closing = next((mark for mark in ("\\}", ")", "]") if latex.endswith(mark)), None)
    if opening is None or closing is None or len(latex) < len(opening) + len(closing):
        return None
    content = latex[len(opening) : len(latex) - len(closing)]
    depth = 0
    for character in content:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return None
    return (opening, content, closing) if depth == 0 else None


def split_parts(latex: str) -> list[str]:
    """Splits at the commas and semicolons that stand in no bracket."""
    depth, parts = 0, [""]
    for character in latex:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def without_unit(latex: str, unit: str) -> str:
    """Cuts the longest end that reads as the unit, whatever its markup."""
    plain = _UNIT_MARKUP.sub("", unit)
    if not plain or len(latex) > LONGEST:
        return latex
    for start in range(1, len(latex)):
        value, end = latex[:start], latex[start:]
        whole = not (value[-1].isalpha() and end[0].isalpha())  # not the m of km
        balanced = value.count("{") == value.count("}")
        if whole and balanced and _UNIT_MARKUP.sub("", end) == plain:
            return value.rstrip("\\ ~")
    return latex


def as_word(latex: str) -> str | None:
    """Returns the one word that an answer is, in small letters without spaces, or None."""
    match = _WORDS.fullmatch(latex)
    return "".join((match[1] or match[2]).lower().split()) if match else None


def in_radians(latex: str) -> str:
    """Writes angles of trigonometric functions in degrees as the parser takes them."""
    return _DEGREES.sub(_radians, latex)


def _radians(match: re.Match[str]) -> str:
    return f"{match[1]}(\\frac{{{match[2]}\\pi}}{{180}})"
