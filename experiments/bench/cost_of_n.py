"""Seconds, compilations and peak memory of scoring N experts, one fresh process for each N.

`python -m experiments.bench.cost_of_n --num 100` is one such process; it prints JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.bench import timing
from experiments.common import machine
from experiments.common.readme import markdown_table, number

ITEMS, BLOCK = 64, 4
FLAT = 1.1  # peak memory of the largest N over that of the smallest, at most


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures N = 100, 1000, 10000, alternated, in processes of their own.

    Returns:
      JSON values: for each N the seconds, the programs compiled for the search and while scoring,
      the peak resident memory of the process and the temporaries of the compiled program. Once
      with a fixed block size, and once with `auto`, which compiles a program for one expert first.
    """
    del torch_python
    numbers, rounds = ((20, 40), 1) if quick else ((100, 1000, 10000), 3)
    rows: dict[int, list[dict[str, Any]]] = {num: [] for num in numbers}
    for _ in range(rounds):
        for num in numbers:
            rows[num].append(_child(num, str(BLOCK)))
    fixed = {str(num): _join(own) for num, own in rows.items()}
    auto = {} if quick else {str(num): _join([_child(num, "auto")]) for num in numbers}
    first, last = fixed[str(numbers[0])], fixed[str(numbers[-1])]
    growth = last["peak_bytes"]["median"] / first["peak_bytes"]["median"]
    most = max(max(row["compilations"]) for row in fixed.values())
    return {
        "items": ITEMS,
        "parameters": rows[numbers[0]][0]["parameters"],
        "rounds": rounds,
        "fixed": fixed,
        "auto": auto,
        "targets": [
            timing.target("compilations of a search, largest over N", most, 1, at_least=False),
            timing.target(
                f"peak memory, N = {numbers[-1]} over N = {numbers[0]}",
                growth,
                FLAT,
                at_least=False,
            ),
            timing.target(
                f"temporaries, N = {numbers[-1]} over N = {numbers[0]}",
                last["temporary_bytes"] / max(first["temporary_bytes"], 1),
                1.0,
                at_least=False,
            ),
        ],
    }


def _join(own: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "score_seconds": timing.summary([row["score_seconds"] for row in own]),
        "setup_seconds": timing.summary([row["setup_seconds"] for row in own]),
        "peak_bytes": timing.summary([row["peak_bytes"] for row in own]),
        "compilations": [row["compilations"] for row in own],
        "compilations_while_scoring": [row["compilations_while_scoring"] for row in own],
        "temporary_bytes": own[0]["temporary_bytes"],
        "block_size": own[0]["block_size"],
    }


def _child(num: int, block_size: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "experiments.bench.cost_of_n", "--num", str(num)]
    done = subprocess.run(
        [*words, "--block-size", block_size], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout))


def score_once(num: int, block_size: int | str) -> dict[str, Any]:
    """Scores N experts of a small MLP on 64 items; returns what it cost.

    Compilations are counted by JAX's own events, from the placement of the data to the last score.
    """
    import jax

    from thicket_jax.experts.population import population
    from thicket_jax.mapping import devices
    from thicket_jax.mapping.placement import Placement
    from thicket_jax.scoring.scorer import Scorer
    from thicket_jax.tasks.signals import model as signal_model
    from thicket_jax.tasks.signals.families import family_batch

    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(about.get("fun_name")))

    def score_fn(params: Any, points: jax.Array) -> jax.Array:
        return -((signal_model.next_value(params, points[:, :-1]) - points[:, -1]) ** 2)

    params = signal_model.initialise(jax.random.key(0), "xavier")
    points = family_batch("sinusoid", jax.random.key(1), ITEMS, signal_model.CONTEXT + 1)
    experts = population(jax.random.key(2), num, 0.05)
    jax.block_until_ready((params, points))
    jax.monitoring.register_event_duration_secs_listener(listen)
    began = time.perf_counter()
    mapper = devices.make_mapper()
    scorer = Scorer.placed(score_fn, params, experts.noise, points, Placement(mapper, block_size))
    scorer.expert_map.prepare(experts)
    setup, before = time.perf_counter() - began, len(compiled)
    began = time.perf_counter()
    scored = sum(len(part) for _, part in scorer.stream(experts))
    assert scored == num
    return {
        "score_seconds": time.perf_counter() - began,
        "setup_seconds": setup,
        "compilations": len(compiled),
        "compilations_while_scoring": len(compiled) - before,
        "peak_bytes": _peak_bytes(mapper.devices[0]),
        "temporary_bytes": scorer.expert_map.program(experts).temporary_bytes,
        "block_size": scorer.expert_map.block(experts),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }


def _peak_bytes(device: Any) -> int:
    """The most memory that was in use: an accelerator's own; on a CPU the whole process's."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for kind in ("fixed", "auto"):
        for num, row in result[kind].items():
            score = row["score_seconds"]
            rows.append(
                [
                    f"{int(num):,}; {'auto: ' if kind == 'auto' else ''}{row['block_size']}",
                    f"{number(score['median'])} ({number(score['min'])} to {number(score['max'])})",
                    number(1e3 * score["median"] / int(num)),
                    number(row["setup_seconds"]["median"]),
                    str(statistics.mode(row["compilations"])),
                    str(statistics.mode(row["compilations_while_scoring"])),
                    number(row["peak_bytes"]["median"] / 2**20, 4),
                    number(row["temporary_bytes"] / 2**10, 4),
                ]
            )
    head = ["N; block size", "s scoring", "ms per expert", "s setup with compiling"]
    head += ["compilations", "of these while scoring", "peak memory, MiB", "temporaries, KiB"]
    return (
        f"An MLP of {result['parameters']:,} parameters on {result['items']} items; each N in a "
        f"fresh process, {result['rounds']} alternated rounds. `auto` compiles a program for one "
        "expert to read its memory before it chooses. Peak memory on a CPU is the whole "
        "process's, JAX included; on an accelerator the device's.\n\n" + markdown_table(head, rows)
    )


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Scores N experts once and prints JSON.")
    parser.add_argument("--num", type=int, required=True)
    parser.add_argument("--block-size", default="auto")
    options = parser.parse_args(arguments)
    machine.start_devices()
    size = options.block_size
    print(json.dumps(score_once(options.num, size if size == "auto" else int(size))))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
