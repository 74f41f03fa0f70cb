"""A cache of base parameters: an Orbax checkpoint a model, found again by what made it.

Every task keeps its pretrained base here, so that a second run starts at once and from the same
bits. What is found is either exactly what was kept or a clear error, never something near it.
"""

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import DataError
from thicket_jax.runs import checkpoints

_CHECKPOINT, _LABEL = "params", "label.json"
_SETTINGS = ("jax_threefry_partitionable", "jax_enable_x64", "jax_default_matmul_precision")


def cached(
    folder: str | os.PathLike[str],
    name: str,
    fingerprint: Mapping[str, Any],
    make: Callable[[], Any],
) -> Any:
    """Returns the base parameters made with this fingerprint, calling `make` only the first time.

    The checkpoint is `folder/name-<hash>`; the hash is of the fingerprint and of what changes any
    computation in JAX (its version, the device kind, the settings of random bits and precision).
    It is written beside its place and renamed, so an interrupted run leaves no half of one. With
    several processes each reads, and process 0 alone writes.

    Args:
      folder: where the cached models are; made if it is not there.
      name: a readable beginning for the checkpoint's name, such as `signals-mixed`.
      fingerprint: JSON values: all that changes the result, such as the recipe's version, its
        options, the seed and the PRNG implementation.
      make: returns the parameters, nested dicts with string keys and arrays as leaves. Not called
        when the checkpoint is there.

    Returns:
      What `make` returned, as JAX arrays: the same bits whether made or found.

    Raises:
      DataError: the checkpoint is damaged (delete the folder that the message names), or the cache
        folder cannot be written (name another with --cache).
    """
    text = json.dumps({**fingerprint, **_surroundings()}, sort_keys=True)
    home = pathlib.Path(folder).expanduser().resolve()
    place = home / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if place.exists():
        return jax.tree.map(jnp.asarray, _load(place, text))
    if jax.process_index() == 0:
        _try_to_write(home)
    params = jax.tree.map(np.asarray, make())
    if jax.process_index() == 0:
        _keep(place, text, params)
    return jax.tree.map(jnp.asarray, params)


def _surroundings() -> dict[str, Any]:
    """What changes a result without being an option."""
    return {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        **{name: str(getattr(jax.config, name)) for name in _SETTINGS},
    }


def _checksums(checkpoint: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint, by its path inside."""
    return {
        path.relative_to(checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }


def _load(place: pathlib.Path, fingerprint: str) -> Any:
    try:
        label = json.loads((place / _LABEL).read_text())
        if label["fingerprint"] != fingerprint:
            raise ValueError("it was made with other options")
        if label["files"] != _checksums(place / _CHECKPOINT):
            raise ValueError("its files do not match their checksums")
        return checkpoints.load(place / _CHECKPOINT)
    except Exception as error:  # a damaged label can be anything at all
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"the cached base model {place} is damaged ({type(error).__name__}: {reason}); "
            "delete that folder and run again"
        ) from error


def _try_to_write(home: pathlib.Path) -> None:
    """Finds out before the work, not after it, that the cache folder cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise _unwritable(home, error) from error


def _unwritable(home: pathlib.Path, error: OSError) -> DataError:
    return DataError(
        f"the cache folder {home} cannot be written ({error.strerror or error}); "
        "name another with --cache"
    )


def _keep(place: pathlib.Path, fingerprint: str, params: Any) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
            stage = pathlib.Path(folder) / place.name
            checkpoints.save(stage / _CHECKPOINT, params)
            label = {"fingerprint": fingerprint, "files": _checksums(stage / _CHECKPOINT)}
            (stage / _LABEL).write_text(json.dumps(label, indent=1))
            os.rename(stage, place)
    except OSError as error:
        if not place.exists():  # it does when another run has made the same model meanwhile
            raise _unwritable(place.parent, error) from error
