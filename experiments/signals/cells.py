"""Which runs there are: every pair with every seed."""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from experiments.common.command import Cell, Plan
from experiments.signals import verdict
from experiments.signals.measure import PAIRS, Size, measure
from thicket_jax.errors import ArgumentError, check_choice
from thicket_jax.tasks.signals.families import SIGNALS
from thicket_jax.tasks.signals.task import PRETRAINS

QUICK_PAIRS = ("xavier:one_line", "line:line")


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the runs that the options ask for; each trains its base anew, so none is kept."""
    size = Size(options.num, options.k, options.train_items, options.test_items)
    block_size: int | str = "auto"
    if options.quick:
        size, block_size = Size(20, 2, 16, 8), 4
    pairs = options.pairs or (QUICK_PAIRS if options.quick else PAIRS)
    for pair in pairs:
        _check(pair)
    return Plan(
        dataclasses.asdict(size),
        [
            Cell(
                {"pair": pair, "seed": seed},
                functools.partial(measure, pair, seed, size, block_size),
            )
            for pair in pairs
            for seed in range(options.seeds)
        ],
    )


def _check(pair: str) -> None:
    pretrain, colon, target = pair.partition(":")
    if not colon:
        raise ArgumentError(f"--pairs {pair} must be PRETRAIN:TARGET, such as mixed:sinusoid")
    check_choice("pretrain", pretrain, PRETRAINS)
    check_choice("target", target, SIGNALS)


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns a run's errors as one line."""
    (run,) = records
    return [
        f"{run['pair']} seed {run['seed']}: base {run['base']['test']:.4f}, "
        f"best {run['best']['test']:.4f}, ensemble {verdict.ensemble_error(run):.4f}, "
        f"{run['seconds']['total']:.1f} s"
    ]
