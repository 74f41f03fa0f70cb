"""Which searches there are: every task with its seeds, each searched in every way."""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from experiments.common.command import Cell, Plan, say
from experiments.racing.measure import FULL, QUICK, measure
from thicket_jax.errors import check_choice


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the searches that the options ask for; they keep nothing in a folder."""
    cases = QUICK if options.quick else FULL
    names = tuple(case.task for case in cases)
    for name in options.tasks or ():
        check_choice("tasks", name, names)
    tasks = options.tasks or (names[:1] if options.quick else names)
    if "stories" in tasks and not options.model:
        say("stories is left out: it needs --model")
        tasks = [task for task in tasks if task != "stories"]
    found = []
    for case in cases:
        if case.task not in tasks:
            continue
        for seed in range(options.seeds or case.seeds):
            how: dict[str, Any] = {"cold": seed == 0}
            if options.quick:
                how = {"block_size": 4, "cold": False, "once": True}
            run = functools.partial(measure, case, seed, options.model, **how)
            found.append(Cell({"task": case.task, "seed": seed}, run))
    return Plan({"cases": [_without_seeds(case) for case in cases]}, found)


def _without_seeds(case: Any) -> dict[str, Any]:
    return {name: x for name, x in dataclasses.asdict(case).items() if name != "seeds"}


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns what each way found, a line each."""
    (run,) = records
    k = run["ways"]["full"]["found"]  # full scoring finds all that there are
    return [
        f"{run['task']} seed {run['seed']}, {way}: {row['found']} of {k} found, "
        f"{100 * row['share']:.1f} % of the outcomes, {row['seconds']['total']:.1f} s"
        for way, row in run["ways"].items()
    ]
