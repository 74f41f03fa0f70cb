"""What is measured: roll-outs to draw, then for each seed neighbourhoods and fine-tunings."""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from experiments.common.command import Cell, Plan
from experiments.needle_or_thicket import neighbourhood, roll_outs, tuning
from experiments.needle_or_thicket.signals_table import signals_table
from experiments.needle_or_thicket.size import BASES, QUICK, TARGETS, Size
from thicket_jax.errors import check_choice

PARTS = ("roll_outs", "neighbourhoods", "tunings")


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the cells that the options ask for, whole seeds first; bases are kept in `work`."""
    for target in options.targets or ():
        check_choice("targets", target, TARGETS)
    targets = options.targets or (TARGETS[:1] if options.quick else TARGETS)
    size, settings = Size(), signals_table()["settings"]
    block_size: int | str = "auto"
    if options.quick:
        size, block_size = QUICK, 1
        settings = {"num": size.num, "k": size.k, "train_items": size.train_items, "test_items": 2}
    how = (size, str(work), block_size)
    found = [
        Cell(
            {"pair": pair},
            functools.partial(roll_outs.measure, pair, settings, *how),
            "roll_outs",
        )
        for pairs in roll_outs.PAIRS[: 1 if options.quick else None]
        for pair in pairs
    ]
    for seed in range(options.seeds):
        for target in targets:
            found += [
                Cell(
                    {"base": base, "target": target, "seed": seed},
                    functools.partial(neighbourhood.measure, base, target, seed, *how),
                    "neighbourhoods",
                )
                for base in BASES
            ]
            tune = functools.partial(tuning.measure, target, seed, *how)
            found.append(Cell({"target": target, "seed": seed}, tune, "tunings"))
    return Plan(dataclasses.asdict(size), found)


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns a cell's name and its seconds as one line."""
    (record,) = records
    seconds = record["seconds"]
    total = sum(seconds.values()) if isinstance(seconds, dict) else seconds
    name = ", ".join(f"{key} {value}" for key, value in cell.name.items())
    return [f"{cell.part}, {name}: {total:.1f} s"]
