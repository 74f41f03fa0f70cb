"""Rows of the data files that users have: JSON lines, JSON, CSV, TSV and parquet.

Every row is checked while it is read, so that what is wrong with a file is said with its line.
"""

import base64
import csv
import dataclasses
import gzip
import hashlib
import io
import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from thicket_jax.errors import DataError

Row = dict[str, Any]
Column = str | tuple[str, ...]
"""A column that a task needs: its name, or several names of which a row has at least one."""

_Numbered = Iterator[tuple[str, Any]]  # where a row stands, such as `line 3`, and what stands there
_SHOWN = 60  # characters of a value that an error message quotes


@dataclasses.dataclass(frozen=True)
class File:
    """One file that was read.

    Attributes:
      path: where it lies.
      rows: its rows in file order, JSON values only.
      sha256: of the file's bytes, in hexadecimal.
    """

    path: pathlib.Path
    rows: list[Row]
    sha256: str


def read_rows(path: str | pathlib.Path, needed: Sequence[Column]) -> list[Row]:
    r"""Returns the rows of one file, in file order.

    The kind of a file is its ending: `.jsonl` has one object a line; `.json` a list of objects, or
    an object with one such list in it, or JSON lines; `.csv` and `.tsv` a header line, and every
    value is text; `.parquet` needs pyarrow, and dates, decimals and bytes become text. All but
    parquet may be compressed (`.gz`). Text is UTF-8; line ends inside values stay as they are.

    No number is NaN or infinite, at any depth, and no needed value of a CSV file is the word nan,
    which is how tables write that there is none.

    Args:
      path: the file.
      needed: the columns that every row must have, with a value other than null. A tuple names
        alternatives: `("question", "problem")`.

    Raises:
      DataError: the file is not there, is no such file, or has a line that is not such a row; the
        text names the file, the line (or entry, or row) and the columns that are read.
    """
    return read_file(path, needed).rows


def read_file(path: str | pathlib.Path, needed: Sequence[Column]) -> File:
    """Does what `read_rows` does, and keeps the path and the SHA-256 of the bytes."""
    path = pathlib.Path(path).expanduser()
    kind = ending(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a data file; {_reads(needed)}")
    if not kind and path.exists():
        raise DataError(f"{path} is not a data file: its name must end in {_ENDINGS}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    found = _READERS[kind.removesuffix(".gz")](path, _plain(path, raw), needed)
    rows = [_checked(path, place, value, needed) for place, value in found]
    if not rows:
        raise DataError(f"{path} has no rows; {_reads(needed)}")
    return File(path, rows, hashlib.sha256(raw).hexdigest())


def ending(path: pathlib.Path) -> str:
    """Returns the ending that says how a file is read, such as `.jsonl.gz`, or nothing."""
    name = path.name.lower()
    packed = ".gz" if name.endswith(".gz") else ""
    kind = pathlib.PurePath(name.removesuffix(packed)).suffix
    return kind + packed if kind in _READERS and not (packed and kind == ".parquet") else ""


def alternatives(column: Column) -> tuple[str, ...]:
    """Returns the names that a needed column may have."""
    return (column,) if isinstance(column, str) else column


def _plain(path: pathlib.Path, raw: bytes) -> bytes:
    """The bytes of a file, decompressed if its name says that they are compressed."""
    if not path.name.lower().endswith(".gz"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}") from error


def _text(path: pathlib.Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(
            f"{path} line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def _loaded(path: pathlib.Path, text: str, line: int = 1) -> Any:
    """The JSON value of `text`, which begins on line `line` of the file."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_number)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
        return value
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        what = f"not JSON, {error.msg} at column {error.colno}"
        raise DataError(f"{path} line {at}: {what}; {_WANTED}") from error
    except _NotANumberError as error:
        at = line + _lines_before(text, error.word)
        raise DataError(f"{path} line {at}: {error}") from error
    except (ValueError, RecursionError) as error:  # half a character, a number of 5000 digits
        raise DataError(
            f"{path} line {line}: {_short(str(error), 2 * _SHOWN)}; {_WANTED}"
        ) from error


class _NotANumberError(ValueError):
    """A word that Python reads as a number, and that is none in JSON."""

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(f"{_short(word)} {reason}")
        self.word = word


def _no_number(word: str) -> Any:
    """Refuses NaN and Infinity, which Python reads and JSON lacks: no answer equals them."""
    raise _NotANumberError(
        word, "is not JSON and equals no answer; write null, or leave the row out"
    )


def _number(word: str) -> float:
    """A number of a JSON file; one that is too large for Python's would become infinite."""
    number = float(word)
    if math.isinf(number):
        raise _NotANumberError(word, "is too large for a number; write it as text")
    return number


def _lines_before(text: str, word: str) -> int:
    """How many lines stand before a word that is in no string of a JSON text."""
    for match in re.finditer(rf'"(?:[^"\\]|\\.)*"|({re.escape(word)})', text):
        if match[1]:
            return text.count("\n", 0, match.start())
    return 0


def _json_lines(path: pathlib.Path, raw: bytes, needed: Sequence[Column]) -> _Numbered:
    del needed
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(_text(path, raw).split("\n"), 1):
        if line.strip():
            yield f"line {number}", _loaded(path, line, number)


def _json(path: pathlib.Path, raw: bytes, needed: Sequence[Column]) -> _Numbered:
    text = _text(path, raw)
    if not text.strip():
        return
    try:
        value = _loaded(path, text)
    except DataError:
        if not _begins_with_a_line(path, text):
            raise
        yield from _json_lines(path, raw, needed)
        return
    name = ""
    if isinstance(value, dict) and not (needed and all(_has(value, each) for each in needed)):
        lists = [key for key, each in value.items() if _is_rows(each)]
        if len(lists) != 1:
            found = ", ".join(lists) if lists else "none"
            raise DataError(
                f"{path} is one object and must have one list of objects in it (found: {found}); "
                f"{_reads(needed)}"
            )
        name, value = f" of {lists[0]!r}", value[lists[0]]
    if not isinstance(value, list):
        value = [value]
    for number, each in enumerate(value, 1):
        yield f"entry {number}{name}", each


def _begins_with_a_line(path: pathlib.Path, text: str) -> bool:
    """Whether the first line of a `.json` file is an object of its own: then it is JSON lines."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and isinstance(_loaded(path, first), dict)
    except DataError:
        return False


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) for e in value)


def _table(path: pathlib.Path, raw: bytes, needed: Sequence[Column], delimiter: str) -> _Numbered:
    # newline="" keeps the line ends inside quoted values; strict refuses an open quote, which
    # would otherwise swallow the rest of the file.
    text = io.StringIO(_text(path, raw), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path} line {line}: {error}; quotes are doubled inside quotes") from (
                error
            )
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        if header is None:
            header = fields
            if len(set(header)) < len(header):
                raise DataError(f"{path} line {line}: two columns have one name; {_reads(needed)}")
            continue
        if len(fields) != len(header):
            raise DataError(
                f"{path} line {line} has {len(fields)} values and the header has {len(header)} "
                f"columns ({_short(', '.join(header))}); quote values with delimiters in them"
            )
        row = dict(zip(header, fields, strict=True))
        read = {name for column in needed for name in alternatives(column)}
        for name in read & row.keys():
            if row[name].strip().lower().lstrip("+-") == "nan":
                raise DataError(
                    f"{path} line {line} has {row[name].strip()} in {name!r}, which equals no "
                    "answer; write the value, or leave the row out"
                )
        yield f"line {line}", row


def _csv(path: pathlib.Path, raw: bytes, needed: Sequence[Column]) -> _Numbered:
    return _table(path, raw, needed, ",")


def _tsv(path: pathlib.Path, raw: bytes, needed: Sequence[Column]) -> _Numbered:
    return _table(path, raw, needed, "\t")


def _parquet(path: pathlib.Path, raw: bytes, needed: Sequence[Column]) -> _Numbered:
    del needed
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f'{path} needs pyarrow; pip install "thicket-jax[text]"') from error
    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(raw)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = _short(str(error), 2 * _SHOWN)
        raise DataError(f"{path} is not a readable parquet file: {reason}") from error
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if bad := _no_finite(value):
                raise DataError(
                    f"{path} row {number} has {bad} in {name!r}, which equals no answer; write "
                    "null, or leave the row out"
                )
        yield f"row {number}", json.loads(json.dumps(row, default=_as_text))


def _no_finite(value: Any) -> str | None:
    """The first number in a value that is NaN or infinite, at any depth."""
    if isinstance(value, float):
        return None if math.isfinite(value) else str(value)
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    return next((bad for each in inside if (bad := _no_finite(each))), None)


def _as_text(value: Any) -> str:
    """What parquet has and JSON has not, as text: dates, decimals, bytes."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _has(row: Row, column: Column) -> bool:
    return any(row.get(name) is not None for name in alternatives(column))


def _checked(path: pathlib.Path, place: str, value: Any, needed: Sequence[Column]) -> Row:
    if not isinstance(value, dict):
        shown = _short(json.dumps(value, ensure_ascii=False))
        raise DataError(f"{path} {place} is not an object but {shown}; {_reads(needed)}")
    for column in needed:
        if _has(value, column):
            continue
        names = alternatives(column)
        present = [name for name in names if name in value]
        if present:
            raise DataError(f"{path} {place} has no value (null) in {present[0]!r}")
        wanted = " or ".join(map(repr, names))
        raise DataError(
            f"{path} {place} has no {wanted}, only {_short(', '.join(value))}; {_reads(needed)}"
        )
    return value


def _reads(needed: Sequence[Column]) -> str:
    if not needed:
        return "the task reads rows with named columns"
    return "the task reads " + ", ".join(" or ".join(alternatives(column)) for column in needed)


def _short(text: str, limit: int = _SHOWN) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


_READERS: dict[str, Callable[[pathlib.Path, bytes, Sequence[Column]], _Numbered]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
_ENDINGS = ".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
_WANTED = "a .jsonl file has one JSON object a line, a .json file a list of objects"
