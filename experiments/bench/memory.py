"""Peak memory of scoring: plain, low-rank and streamed, in blocks and one by one.

`python -m experiments.bench.memory --modes stream` measures one in a process of its own and prints
JSON.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

import thicket_jax as tj
from experiments.bench import mlp, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import ArgumentError
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer

SIGMA, BATCH = 0.01, 8
MODES = {
    "dense, block 1": (tj.rademacher(), 1, False),
    "dense, block 1, streamed": (tj.rademacher(), 1, True),
    "dense, block 4": (tj.rademacher(), 4, False),
    "dense, block 4, streamed": (tj.rademacher(), 4, True),
    "low-rank, block 1": (tj.low_rank(1), 1, False),
    "low-rank, block 4": (tj.low_rank(1), 4, False),
}
"""Name → law, block size, whether streamed."""
LEAF = 1.2  # temporaries of a streamed expert, in largest leaves, at most


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures every mode on one device; in full, each sample is a process of its own.

    Returns:
      JSON values: for every mode the bytes of the compiled program's temporaries, and what the
      process (on an accelerator, the device) held at most above what it held before scoring, with
      all samples; both as shares of the parameters; targets.
    """
    del torch_python
    width, layers, rounds = (32, 3, 1) if quick else (2048, 8, 5)
    samples: dict[str, list[dict[str, int]]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for modes in [list(MODES)] if quick else [[mode] for mode in MODES]:
            for mode, found in _child(modes, width, layers).items():
                samples[mode].append(found)
    size = 4 * layers * width * width
    rows = {}
    for mode, found in samples.items():
        held = [one["peak_bytes"] for one in found]
        rows[mode] = {
            "temporary_bytes": found[0]["temporary_bytes"],
            "peak_bytes": timing.summary(held),
            "temporary_share": found[0]["temporary_bytes"] / size,
            "peak_share": timing.summary([value / size for value in held]),
        }
    leaf = 4 * width * width
    streamed = rows["dense, block 1, streamed"]
    return {
        "width": width,
        "layers": layers,
        "parameter_bytes": size,
        "largest_leaf_share": 1 / layers,
        "rounds": rounds,
        "rows": rows,
        "targets": [
            timing.target(
                "streamed, block 1: temporaries of the compiled program, in largest leaves",
                streamed["temporary_bytes"] / leaf,
                LEAF,
                at_least=False,
            ),
            timing.target(
                "streamed, block 1: peak while scoring, in largest leaves",
                None if quick else streamed["peak_bytes"]["median"] / leaf,
                LEAF,
                at_least=False,
            ),
        ],
    }


def _child(modes: list[str], width: int, layers: int) -> dict[str, dict[str, int]]:
    words = [sys.executable, "-m", "experiments.bench.memory", "--modes", *modes]
    words += ["--width", str(width), "--layers", str(layers)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def measure(mode: str, width: int, layers: int) -> dict[str, int]:
    """Scores two blocks of experts; returns `temporary_bytes` and `peak_bytes` above the start.

    Everything is on the device and compiled before the count begins.
    """
    noise, block, stream = MODES[mode]
    params = mlp.parameters(width, layers)
    experts = tj.population(jax.random.key(0), 2 * block, SIGMA, noise=noise)
    mapper = devices.make_mapper(jax.devices()[:1])
    scorer = Scorer.placed(
        mlp.score_fn,
        params,
        experts.noise,
        mlp.inputs(BATCH, width),
        Placement(mapper, block, stream=stream),
    )
    scorer.expert_map.prepare(experts)
    temporary = scorer.expert_map.program(experts).temporary_bytes
    before = _begin(mapper.devices[0])
    scored = sum(len(part) for _, part in scorer.stream(experts))
    assert scored == len(experts)
    return {"temporary_bytes": temporary, "peak_bytes": _peak(mapper.devices[0]) - before}


def _begin(device: Any) -> int:
    """Returns the bytes held now; from here on, the peak of a CPU's process counts anew."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats:
        return int(stats["bytes_in_use"])
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise ArgumentError(f"memory needs Linux, where a peak can count anew: {error}") from None
    return _of_process("VmRSS")


def _peak(device: Any) -> int:
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["peak_bytes_in_use"]) if stats else _of_process("VmHWM")


def _of_process(field: str) -> int:
    """Returns a field of /proc/self/status, bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for mode, row in result["rows"].items():
        share = row["peak_share"]
        rows.append(
            [
                mode,
                number(row["temporary_bytes"] / 2**20),
                number(row["temporary_share"]),
                number(row["peak_bytes"]["median"] / 2**20),
                f"{number(share['median'])} ({number(share['min'])} to {number(share['max'])})",
            ]
        )
    head = ["scoring", "temporaries, MiB", "in copies of the parameters"]
    head += ["peak above the start, MiB", "in copies of the parameters (spread)"]
    return (
        f"An MLP of width {result['width']} and {result['layers']} layers, "
        f"{result['parameter_bytes'] / 2**20:.0f} MiB of float32 parameters on one device; the "
        f"largest leaf is {result['largest_leaf_share']:.3f} of them. Temporaries: by the compiled "
        "program's memory analysis, beside the parameters. Peak: what a process of its own held at "
        "most while scoring above what it held before, parameters and program there already (on an "
        f"accelerator, the device); {result['rounds']} processes each.\n\n"
        + markdown_table(head, rows)
    )


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Scores in some modes and prints JSON.")
    parser.add_argument("--modes", nargs="+", required=True, choices=list(MODES))
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    options = parser.parse_args(arguments)
    found = {mode: measure(mode, options.width, options.layers) for mode in options.modes}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
