"""JSON files that are whole or not there, what differs in two, and fingerprints of arrays.

JSON has no NaN and no infinity: what is not finite is null in a file and None when it is read.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import RunError
from thicket_jax.experts.leaves import leaf_rows
from thicket_jax.runs import interrupts

_SHOWN, _BEFORE = 60, 24  # characters of a long text: in all, and before what differs
TEMPORARY = ".tmp"
"""Ending of a file that is being written."""


def plain_json(value: Any) -> Any:
    """Returns plain JSON values: numpy's as Python's, not finite as None, −0 as 0, keys as text.

    Example:
      >>> plain_json({"scores": np.array([0.5, np.nan], np.float32), "seen": (np.int64(3), True)})
      {'scores': [0.5, None], 'seen': [3, True]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None
    return value


def fingerprint(tree: Any) -> str:
    """Returns the SHA-256 of a pytree's paths, dtypes, shapes and bytes, in hexadecimal.

    Memory: one leaf on the host at a time.
    """
    digest = hashlib.sha256()
    for path, leaf in leaf_rows(tree):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if is_key:  # of random numbers: its implementation and its words
            path = f"{path}|{leaf.dtype}"
        value = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{path}|{value.dtype}|{value.shape}|".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that the file has either its old or its new content, never half of it.

    Args:
      path: of the file; its folder must exist.
      value: JSON values, numpy scalars and arrays among them, see `plain_json`.

    Raises:
      TypeError: a value that JSON cannot hold; the file stays as it was.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Returns the text that `write_json` writes.

    Raises:
      TypeError: a value that JSON cannot hold.
    """
    return json.dumps(plain_json(value), indent=1, allow_nan=False) + "\n"


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text in UTF-8: the file has either its old or its new content."""
    data = text.encode()
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Gives a file to write; at the end it is `path`, durably. Before that, `path` is as it was.

    Where writing fails, what was written is removed.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with interrupts.waiting():
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_tree(folder: pathlib.Path) -> None:
    """Makes all files below a folder, and their names, durable."""
    for path in [*folder.rglob("*"), folder]:
        sync_folder(path)


def check_place(path: pathlib.Path, mend: str = "; choose another place") -> None:
    """Raises `RunError` unless files can be made below `path`, which need not exist."""
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".thicket-", dir=there):
            pass
    except OSError as error:
        raise RunError(f"{path} cannot be written: {there}: {error.strerror}{mend}") from None


def read_json(
    path: pathlib.Path,
    wanted: Sequence[str] = (),
    mend: str = "restore it from a copy or start a new run",
) -> Any:
    """Reads JSON.

    Args:
      path: of the file.
      wanted: names that it must have; with any, it must be an object.
      mend: what to do about a damaged file, as a sentence of the error.

    Raises:
      RunError: the file is missing, damaged, or lacks a name; the text says which, and what to do.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing; is {path.parent} a run directory?") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); {mend}") from None
    lacking = [name for name in wanted if not isinstance(value, dict) or name not in value]
    if lacking:
        raise RunError(f"{path} is damaged (it has no {', '.join(lacking)}); {mend}")
    return value


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Returns one phrase for every entry in which two JSON values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted({*old, *new}):
            place = f"{name}.{key}" if name else str(key)
            found += differences(old.get(key), new.get(key), place)
        return found
    if old == new:
        return []
    was, now = apart(json.dumps(old), json.dumps(new))
    return [f"{name} was {was}, is now {now}"]


def apart(first: str, second: str) -> tuple[str, str]:
    """Returns two texts as a line can show them: long ones from shortly before they differ.

    Texts that are not equal never look equal.

    >>> apart("0" * 99 + "17", "0" * 99 + "18")
    ('…0000000000000000000000017', '…0000000000000000000000018')
    """
    pairs = enumerate(zip(first, second, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
    begin = max(0, same - _BEFORE) if max(len(first), len(second)) > _SHOWN else 0

    def shown(text: str) -> str:
        end = begin + _SHOWN
        return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")

    return shown(first), shown(second)
