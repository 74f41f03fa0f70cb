"""Pretraining on `mixed`, data made on the device, against PyTorch with data from the host."""

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import jax

from experiments.bench import timing
from experiments.bench.torch_worker import INSTALL, TorchWorker, has_torch, threads_text
from experiments.common import machine
from experiments.common.readme import markdown_table, number
from thicket_jax.tasks.signals import model as signal_model

LIMIT = 8.0
OURS = "thicket_jax"
LOOPS = {"dataset": "PyTorch, Dataset and DataLoader", "numpy": "PyTorch, leanest numpy loop"}


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures seconds per pretraining of 1000 iterations of batch 256, alternated.

    Ours is `signal_model.pretrain`, without a cache; its compilation is in the first call alone
    and is given by itself, and the ratio with and without it. A PyTorch loop is timed for fewer
    iterations and scaled: every iteration of it does the same work. The targets are judged by the
    Dataset and DataLoader, the usual way to draw sample by sample; the leanest loop is beside it.

    Returns:
      JSON values with all samples.
    """
    iterations, timed, batch, rounds = (20, 4, 32, 2) if quick else (1000, 100, 256, 5)
    family = "line" if quick else "mixed"
    losses: list[jax.Array] = []

    def ours() -> Any:
        key = jax.random.fold_in(jax.random.key(0), len(losses))
        found = signal_model.pretrain(key, family, iterations, batch)
        losses.append(found[1])
        return found

    first = timing.seconds(ours)
    contenders: dict[str, Callable[[], float]] = {OURS: lambda: timing.seconds(ours)}
    shares: dict[str, list[float]] = {name: [] for name in LOOPS}
    about = None
    with contextlib.ExitStack() as stack:
        if torch_python is not None and has_torch(torch_python):
            worker = stack.enter_context(TorchWorker(torch_python, machine.label() != "cpu"))

            def loop(data: str) -> Callable[[], float]:
                def once() -> float:
                    found = worker.ask(
                        "pretrain", data=data, iterations=timed, batch=batch, seed=len(shares[data])
                    )
                    shares[data].append(found["data_seconds"] / found["seconds"])
                    return float(found["seconds"]) * iterations / timed

                return once

            worker.choose_threads(machine.cores(), loop("dataset"))
            contenders |= {name: loop(data) for data, name in LOOPS.items()}
            about = worker.about
        samples = timing.alternate(contenders, rounds)
    rows: dict[str, dict[str, Any]] = {
        name: timing.summary(values) for name, values in samples.items()
    }
    for data, name in LOOPS.items():
        if name in rows:
            rows[name]["data_share"] = statistics.median(shares[data])
            rows[name]["ratio"] = rows[name]["median"] / rows[OURS]["median"]
            rows[name]["ratio_with_compiling"] = rows[name]["median"] / first
    judged = rows.get(LOOPS["dataset"], {})
    return {
        "family": family,
        "iterations": iterations,
        "batch": batch,
        "rounds": rounds,
        "torch_iterations_timed": timed,
        "torch": about,
        "missing": None if about is not None else INSTALL,
        "rows": rows,
        "first_call_seconds": first,
        "compile_seconds": first - rows[OURS]["median"],
        "last_loss": float(losses[-1][-10:].mean()),
        "targets": [
            timing.target(
                f"times as fast as {LOOPS['dataset']}{ending}", judged.get(key), LIMIT, True
            )
            for key, ending in (("ratio", ""), ("ratio_with_compiling", ", compiling included"))
        ],
    }


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for name, row in result["rows"].items():
        share = row.get("data_share")
        rows.append(
            [
                name,
                number(row["median"]),
                f"{number(row['min'])} to {number(row['max'])}",
                "-" if share is None else f"{100 * share:.0f} %",
                number(row.get("ratio")),
                number(row.get("ratio_with_compiling")),
            ]
        )
    head = ["pretraining", "s, median", "spread", "of it making data"]
    head += ["times of ours", "times of ours with compiling"]
    return "\n\n".join(
        [
            f"{result['iterations']} iterations of batch {result['batch']} on "
            f"`{result['family']}`, {result['rounds']} alternated rounds; PyTorch was timed for "
            f"{result['torch_iterations_timed']} iterations and scaled. Our first call took "
            f"{number(result['first_call_seconds'])} s, of which "
            f"{number(result['compile_seconds'])} s compiled; the table has the later ones.",
            markdown_table(head, rows),
            result["missing"] or threads_text(result["torch"]),
        ]
    )
