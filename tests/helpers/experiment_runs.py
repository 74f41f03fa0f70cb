"""Runs experiments as one types them."""

import os
import pathlib
import subprocess
import sys

from child_settings import COMPILED

ROOT = pathlib.Path(__file__).resolve().parents[2]


def done(*words, module=True):
    """Runs a program as one types it, compiled without much optimisation; what it printed."""
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **COMPILED}
    half_written = "ignore:Error reading persistent compilation cache entry"
    command = [sys.executable, "-W", "error", "-W", half_written, *["-m"] * module, *words]
    finished = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
