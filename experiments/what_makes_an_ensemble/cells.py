"""Which searches there are: every case with its seeds."""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from experiments.common.command import Cell, Plan, say
from experiments.what_makes_an_ensemble.cases import FULL, QUICK, Case
from experiments.what_makes_an_ensemble.measure import measure
from thicket_jax.errors import check_choice


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the searches that the options ask for; their base models are kept in `work`.

    All cases with one seed come before any with the next: a table that is cut off has every case.
    """
    cases = QUICK if options.quick else FULL
    wanted = _wanted(options, cases)
    block_size = 4 if options.quick else "auto"
    most = options.seeds or max((case.seeds for case in wanted), default=0)
    return Plan(
        {"cases": [_without_seeds(case) for case in cases]},
        [
            Cell(
                {"case": case.name, "seed": seed},
                functools.partial(measure, case, seed, str(work), options.model, block_size),
            )
            for seed in range(most)
            for case in wanted
            if options.seeds or seed < case.seeds
        ],
    )


def _wanted(options: argparse.Namespace, cases: tuple[Case, ...]) -> list[Case]:
    tasks = tuple(dict.fromkeys(case.task for case in cases))
    for name in options.tasks or ():
        check_choice("tasks", name, tasks)
    wanted = [case for case in cases if case.task in (options.tasks or tasks)]
    if options.quick and not options.tasks:
        wanted = wanted[:1]
    if not options.model and any(case.task == "stories" for case in wanted):
        say("stories is left out: it needs --model")
        wanted = [case for case in wanted if case.task != "stories"]
    return wanted


def _without_seeds(case: Case) -> dict[str, Any]:
    return {name: x for name, x in dataclasses.asdict(case).items() if name != "seeds"}


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns a search's results as one line."""
    (run,) = records
    return [
        f"{run['case']}, seed {run['seed']}: base {run['base']['test']:.4f}, best single "
        f"{run['single']['test']:.4f}, {sum(run['seconds'].values()):.1f} s"
    ]
