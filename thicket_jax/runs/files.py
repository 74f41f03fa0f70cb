"""JSON files that are whole or not there, what differs in two, and fingerprints of arrays."""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from thicket_jax.errors import RunError
from thicket_jax.experts.leaves import leaf_paths


def plain_json(value: Any) -> Any:
    """Returns plain JSON values; what is not finite becomes None, −0 becomes 0."""
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
    for path, leaf in leaf_paths(tree):
        value = np.asarray(leaf)
        digest.update(f"{path}|{value.dtype}|{value.shape}|".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that the file has either its old or its new content, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: pathlib.Path) -> Any:
    """Reads JSON; a missing or damaged file is a `RunError` that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{path} is missing; is {path.parent} a run directory?") from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}); restore it from a copy or start a new run"
        ) from None


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Returns one phrase for every entry in which two JSON values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted({*old, *new}):
            place = f"{name}.{key}" if name else str(key)
            found += differences(old.get(key), new.get(key), place)
        return found
    return [] if old == new else [f"{name} was {_short(old)}, is now {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:24] + "…" + text[-8:]
