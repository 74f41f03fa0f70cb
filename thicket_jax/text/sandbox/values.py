"""A value as a short text: equal texts where values are equal, different ones where they are not.

The sandbox's caller and its child both use this file: the child says what a program returned, and
the caller compares that with what a test expects, with none of the program's code near it.
"""

import decimal
import fractions
import hashlib
import re

LONGEST = 2000  # characters of a text; a longer one is replaced by its hash
LARGEST = 200_000  # elements, characters and digits that are looked at in one value
_REPR = 500  # characters of the repr of an object that is not plain

_sha256 = hashlib.sha256
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_EXACT: tuple[type, ...] = (fractions.Fraction, decimal.Decimal)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.items()))


class _TooLargeError(Exception):
    """The value has more than LARGEST elements, characters or digits."""


def describe(value: object) -> tuple[str, bool]:
    """Describes a value by a text of at most LONGEST characters.

    Plain values are None, numbers, strings, bytes, and tuples, lists, sets and dicts of plain
    values; an object of a subclass is read as the plain value it extends, by none of its own
    methods; a number of numpy is Python's. Plain values have equal texts exactly where `==` holds:
    1, 1.0, True and Fraction(1) are all "1". Any other object is "<Type repr>" without addresses,
    which is no plain value's text. NaN is not plain, as it does not equal itself.

    Args:
      value: any object.

    Returns:
      The text, and whether the value is plain throughout.

    Example:
      >>> describe([1.0, {"b": (), "a": frozenset({2, 1})}])
      ("[1, {'a': {1, 2}, 'b': ()}]", True)
      >>> describe(float("nan"))
      ('nan', False)
    """
    try:
        text, plain = _text(value, [LARGEST])
    except _TooLargeError:
        return "<too large>", False
    if len(text) > LONGEST:
        text = "sha256 " + _sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return text, plain


def _text(value, left):
    """(text, plain) of a value; `left` holds how much may still be looked at."""
    kind = type(value)
    left[0] -= 1
    if left[0] < 0:
        raise _TooLargeError
    if value is None:
        return "None", True
    if _is_numpy_scalar(kind):
        value = value.item()
        kind = type(value)
    if issubclass(kind, (int, float, complex)) or kind in _EXACT:
        return _number(value, kind, left)
    if issubclass(kind, (str, bytes, bytearray)):
        left[0] -= kind.__len__(value)
        if left[0] < 0:
            raise _TooLargeError
        if issubclass(kind, str):
            return str.__repr__(value), True
        return bytes.__repr__(b"".join([value])), True
    if issubclass(kind, list):
        return _series("[", list.__iter__(value), "]", left)
    if issubclass(kind, tuple):
        return _series("(", tuple.__iter__(value), ")", left)
    if issubclass(kind, set):
        return _sorted(set.__iter__(value), left)
    if issubclass(kind, frozenset):
        return _sorted(frozenset.__iter__(value), left)
    if kind in _VIEWS:
        return _sorted(iter(value), left)
    if issubclass(kind, dict):
        return _mapping(value, left)
    return _opaque(value, kind), False


def _is_numpy_scalar(kind):
    """Whether this is one of numpy's numbers, which equal Python's; numpy is not imported here."""
    return any(base.__name__ == "generic" and base.__module__ == "numpy" for base in kind.__mro__)


def _series(opening, elements, closing, left):
    """Elements in their order."""
    texts, plain = _texts(elements, left)
    return opening + ", ".join(texts) + closing, plain


def _sorted(elements, left):
    """A set; the empty one differs from the empty dict."""
    texts, plain = _texts(elements, left)
    return ("{" + ", ".join(sorted(texts)) + "}" if texts else "set()"), plain


def _texts(elements, left):
    """The text of each element, and whether all are plain."""
    texts, plain = [], True
    for element in elements:
        text, is_plain = _text(element, left)
        texts.append(text)
        plain = plain and is_plain
    return texts, plain


def _mapping(value, left):
    """A dict, its keys in the order of their texts."""
    pairs, plain = [], True
    for key, element in dict.items(value):
        key_text, key_plain = _text(key, left)
        text, is_plain = _text(element, left)
        pairs.append((key_text, text))
        plain = plain and key_plain and is_plain
    return "{" + ", ".join([key + ": " + text for key, text in sorted(pairs)]) + "}", plain


def _number(value, kind, left):
    """Numbers of all types that are equal have one text."""
    if issubclass(kind, int):
        return _whole(int.__int__(value), left), True
    if issubclass(kind, float):
        return _real(float.__pos__(value), left)
    if issubclass(kind, complex):
        value = complex.__pos__(value)
        real, real_plain = _real(value.real, left)
        if value.imag == 0:
            return real, real_plain
        imaginary, imaginary_plain = _real(value.imag, left)
        return "complex(" + real + ", " + imaginary + ")", real_plain and imaginary_plain
    if kind is decimal.Decimal and not (value.is_finite() and abs(value.adjusted()) < 1000):
        # A few characters may stand for a number of 10**18 digits.
        return _opaque(value, kind), False
    return _ratio(*value.as_integer_ratio(), left), True


def _real(value, left):
    """A float, as a whole number where it is one."""
    if value != value:
        return "nan", False
    if value in (float("inf"), float("-inf")):
        return float.__repr__(value), True
    return (_whole(int(value), left) if value.is_integer() else float.__repr__(value)), True


def _ratio(numerator, denominator, left):
    """An exact fraction, as the float that equals it where there is one."""
    if denominator == 1:
        return _whole(numerator, left)
    try:
        value = numerator / denominator
    except OverflowError:
        value = float("inf")
    if abs(value) != float("inf") and value.as_integer_ratio() == (numerator, denominator):
        return float.__repr__(value)
    return _whole(numerator, left) + "/" + _whole(denominator, left)


def _whole(value, left):
    """A whole number; a long one in base 16, which costs little and has no limit on digits."""
    left[0] -= value.bit_length() // 4
    if left[0] < 0:
        raise _TooLargeError
    return str(value) if value.bit_length() <= 64 else hex(value)


def _opaque(value, kind):
    """An object that is not plain: what its repr says of it."""
    try:
        # join makes a true str of a subclass, whose methods would be the program's.
        text = "".join(["", repr(value)])[: 4 * _REPR]
    except Exception as error:
        text = "repr raises " + type.__getattribute__(type(error), "__name__")
    return (
        "<" + type.__getattribute__(kind, "__name__") + " " + _ADDRESS.sub("", text)[:_REPR] + ">"
    )
