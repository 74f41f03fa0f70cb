"""A 0.5B-parameter checkpoint through `thicket run countdown` on this machine: memory and time.

The checkpoint has the shape of Qwen2.5-0.5B and random weights; it is made in a temporary folder.
Every run is a process of its own, as one types it.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from typing import Any

from experiments.bench import random_checkpoint, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import RunError
from thicket_jax.runs import files

LIMIT = 24 * 2**30
OPTIONS = {"num": 2, "train-items": 2, "max-tokens": 8}
PRECISIONS = ("float32", "bfloat16")


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Makes the checkpoint in float32 and runs the command on it, in float32 and in bfloat16.

    Returns:
      JSON values: the seconds that making it took, and for each precision the seconds of every
      stage and the peak resident memory of the process.
    """
    del torch_python
    shape = "tiny" if quick else "0.5B"
    with tempfile.TemporaryDirectory(prefix="experiments-bench-") as place:
        folder = pathlib.Path(place)
        checkpoint = folder / f"random-{shape}"
        checkpoint.mkdir()
        began = time.perf_counter()
        parameters = random_checkpoint.write_checkpoint(checkpoint, shape, "float32")
        seconds = time.perf_counter() - began
        file_bytes = (checkpoint / "model.safetensors").stat().st_size
        rows = {name: _once(checkpoint, name, folder) for name in PRECISIONS}
    return {
        "shape": shape,
        "parameters": parameters,
        "file_bytes": file_bytes,
        "making_seconds": seconds,
        "rows": rows,
        "targets": [
            timing.target(
                f"peak memory in {name}, GiB", row["peak_bytes"] / 2**30, LIMIT / 2**30, False
            )
            for name, row in rows.items()
        ],
    }


def _once(checkpoint: pathlib.Path, precision: str, folder: pathlib.Path) -> dict[str, Any]:
    """Runs the command and waits for it; its own peak is in what the kernel says at its end."""
    out = folder / precision
    words = ["run", "countdown", "--model", str(checkpoint)]
    for name, value in OPTIONS.items():
        words += [f"--{name}", str(value)]
    words += ["--precision", precision]
    place = ["--cache", str(folder / "cache"), "--out", str(out), "--quiet"]
    began = time.perf_counter()
    with open(folder / f"{precision}.log", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "thicket_jax.cli", *words, *place], stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["(it said nothing)"])[-1]
            raise RunError(f"thicket run ended with {process.returncode}: {last}")
    results = files.read_json(out / "results.json")
    words[words.index(str(checkpoint))] = "DIR"
    return {
        "command": shlex.join(["thicket", *words]),
        "peak_bytes": usage.ru_maxrss * 1024,
        "seconds": seconds,
        "timing": results["timing"],
        "devices": results["provenance"]["devices"],
        "block_size": results["provenance"]["block_size"],
    }


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for name, row in result["rows"].items():
        stages = row["timing"]
        rows.append(
            [
                name,
                number(row["peak_bytes"] / 2**30),
                *(number(stages[stage]) for stage in ("setup_s", "compile_s", "score_s")),
                number(stages["ensemble_s"]),
                number(row["seconds"]),
            ]
        )
    head = ["precision", "peak memory, GiB", "s setup with loading", "s compile"]
    head += ["s scoring 2 experts", "s test answers", "s in all"]
    first = next(iter(result["rows"].values()))
    about = (
        f"A Qwen2.5-{result['shape']}-shaped checkpoint, {result['parameters']:,} random "
        f"parameters in float32 ({number(result['file_bytes'] / 2**30)} GiB), on "
        f"{first['devices']} device(s) with {first['block_size']} expert(s) a block: "
        f"`{first['command']}`. Memory is the most that the process held, JAX and every device's "
        "copy included; the graders' processes are apart. In all: from typing the command to its "
        "end, with Python's start, the base's own score, fingerprints and the report."
    )
    return about + "\n\n" + markdown_table(head, rows)
