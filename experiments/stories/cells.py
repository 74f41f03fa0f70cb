"""Which searches there are: every noise law at every sigma with every seed.

Those of one noise law come together, since they share a program.
"""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from experiments.common.command import Cell, Plan
from experiments.stories import verdict
from experiments.stories.measure import Search, Size, measure
from thicket_jax.errors import ArgumentError, check_choice, check_count
from thicket_jax.experts import laws
from thicket_jax.experts.population import check_sigmas
from thicket_jax.search import pipeline


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the searches that the options ask for; without `--runs` they are run in `work`."""
    _check(options)
    size = Size(options.num, tuple(options.k), options.train_items, options.test_items)
    if options.quick:
        size = Size(32, (1, 4), 8, 16, max_tokens=24)
    folder = pathlib.Path(options.runs) if options.runs else work
    searches = [
        Search(noise, sigma, seed)
        for noise in options.noises
        for sigma in options.sigmas
        for seed in range(options.seeds)
    ]
    return Plan(
        dataclasses.asdict(size),
        [
            Cell(
                dataclasses.asdict(which),
                functools.partial(measure, options.model, which, size, folder / which.name),
            )
            for which in searches
        ],
    )


def _check(options: argparse.Namespace) -> None:
    if not options.model:
        raise ArgumentError("--model is missing; give the checkpoint folder of stories260K")
    check_sigmas(options.sigmas)
    pipeline.check_ks(options.k, check_count("num", options.num))
    for name in options.noises:
        check_choice("noises", name, laws.DENSE)


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns a search's accuracies as one line."""
    (run,) = records
    k = max(row["k"] for row in run["ensemble"])
    return [
        f"{run['noise']}, sigma {run['sigma']:g}, seed {run['seed']}: "
        f"base {run['base']['test']:.3f}, best {run['best']['test']:.3f}, ensemble of {k} "
        f"{verdict.accuracy(run, 'ensemble', k):.3f}, {run['experts_per_s']:.0f} experts/s, "
        f"{run['seconds']['total']:.1f} s"
    ]
