"""Orbax for one process alone: it waits for no other, whether or not others are connected.

Base models, segments of the log and exported experts are written by process 0. Orbax's v1
interface compares the path over all connected processes in every save, so that one process of
several would wait for ever; the classic `Checkpointer` takes the active processes as an option.
"""

import contextlib
import errno
import gc
import logging
import os
import pathlib
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.runs import files, interrupts

UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a folder that is being written."""
_KEY_DATA = "key_data:"


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp

    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process_{process}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _storage(path: pathlib.Path) -> Iterator[None]:
    """What storage cannot do is an `OSError`, and storage's own threads say nothing of it."""
    log, hooks = logging.getLogger("absl"), (threading.excepthook, sys.unraisablehook)
    level, failed = log.level, None
    log.setLevel(logging.CRITICAL)
    threading.excepthook = sys.unraisablehook = _silent
    try:
        try:
            yield
        except (ValueError, RuntimeError) as error:
            failed = _system_error(str(error), path)
            if failed is None:
                raise
        if failed is not None:
            gc.collect()  # of what hangs on the error, which speaks once more when it goes
            raise failed
    finally:
        log.setLevel(level)
        threading.excepthook, sys.unraisablehook = hooks


def _silent(_: Any) -> None:
    """Says nothing of an error."""


def _system_error(text: str, path: pathlib.Path) -> OSError | None:
    """The system's error in what the storage below says, if there is one."""
    status = re.match(r"([A-Z_]{5,}): ", text)
    if status is None and "OS error" not in text:
        return None
    found = re.search(r"OS error (\d+)|os_error_code='(\d+)'", text)
    if found is not None:
        number = int(found[1] or found[2])
    else:
        number = errno.ENOSPC if status and status[1] == "RESOURCE_EXHAUSTED" else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def save(path: pathlib.Path, tree: Any) -> None:
    """Writes a pytree of arrays to the folder `path`, which appears whole or not at all.

    Leaves are fetched to the host; `path` must not exist. A signal meanwhile waits. A typed key,
    which Orbax does not take, is stored as `{"key_data:<implementation>": words}`.
    """
    tree = jax.tree.map(_stored, tree)
    with interrupts.waiting():
        unsynced = path.absolute().with_name(path.name + UNFINISHED)
        shutil.rmtree(unsynced, ignore_errors=True)
        with _storage(path), _checkpointer() as checkpointer:
            checkpointer.save(unsynced, tree)
        said = unsynced / "commit_success.txt"
        if said.exists():  # with an absolute path; a run holds none
            said.write_text(f"Checkpoint commit was successful to {path.name}")
        # Orbax renames what may not have reached the disk.
        files.sync_tree(unsynced)
        os.rename(unsynced, path.absolute())
        files.sync_folder(path.absolute().parent)


def load(path: pathlib.Path) -> Any:
    """Returns the pytree at `path`, arrays of numpy and typed keys; raises what storage raises."""
    with _storage(path), _checkpointer() as checkpointer:
        found = checkpointer.restore(path.absolute())
    return jax.tree.map(_loaded, found, is_leaf=_is_key_data)


def _stored(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = np.asarray(jax.random.key_data(leaf))
        return {f"{_KEY_DATA}{jax.random.key_impl(leaf)}": words}
    return np.asarray(leaf)


def _is_key_data(node: Any) -> bool:
    return isinstance(node, dict) and len(node) == 1 and str(*node).startswith(_KEY_DATA)


def _loaded(node: Any) -> Any:
    if not _is_key_data(node):
        return np.asarray(node)
    ((name, words),) = node.items()
    return jax.random.wrap_key_data(jnp.asarray(words), impl=name.removeprefix(_KEY_DATA))
