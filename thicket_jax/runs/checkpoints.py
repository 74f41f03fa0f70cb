"""Orbax for one process alone: it waits for no other, whether or not others are connected.

Base models, segments of the log and exported experts are written by process 0. Orbax's v1
interface compares the path over all connected processes in every save, so that one process of
several would wait for ever; the classic `Checkpointer` takes the active processes as an option.
"""

import errno
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from thicket_jax.runs import files, interrupts

UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a folder that is being written."""


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


def save(path: pathlib.Path, tree: Any) -> None:
    """Writes a pytree of arrays to the folder `path`, which appears whole or not at all.

    Leaves are fetched to the host; `path` must not exist. A signal meanwhile waits.
    """
    tree = jax.tree.map(np.asarray, tree)
    with interrupts.waiting():
        unsynced = path.absolute().with_name(path.name + UNFINISHED)
        shutil.rmtree(unsynced, ignore_errors=True)
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(unsynced, tree)
        except (
            ValueError,
            RuntimeError,
        ) as error:  # of the storage below
            if "OS error" not in str(error):
                raise
            raise OSError(errno.EIO, str(error).splitlines()[0], str(path)) from error
        said = unsynced / "commit_success.txt"
        if said.exists():  # with an absolute path; a run holds none
            said.write_text(f"Checkpoint commit was successful to {path.name}")
        # Orbax renames what may not have reached the disk.
        files.sync_tree(unsynced)
        os.rename(unsynced, path.absolute())
        files.sync_folder(path.absolute().parent)


def load(path: pathlib.Path) -> Any:
    """Returns the pytree at `path` as numpy arrays; what storage raises is passed on."""
    with _checkpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path.absolute()))
