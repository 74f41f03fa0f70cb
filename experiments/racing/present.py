"""The table of the experiment, from its records alone."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from thicket_jax.reports.numbers import joined_rounds


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the targets and the table; there are no figures for the folder."""
    return Shown({"table": text(table)})


def text(table: Mapping[str, Any]) -> str:
    """Returns the targets and the table as Markdown."""
    verdicts = [
        [
            row["name"],
            f"{row['direction']} {row['limit']:g}",
            number(row["measured"]),
            {True: "met", False: "not met", None: "not measured"}[row["met"]],
        ]
        for row in table["targets"]
    ]
    parts = [markdown_table(["target", "limit", "measured", ""], verdicts)]
    for case in table["settings"]["cases"]:
        own = [row for row in table["summary"] if row["task"] == case["task"]]
        if not own:
            parts.append(f"**{case['task']}** was not measured.")
            continue
        rows = [
            [
                row["way"],
                number(row["found"]),
                str(row["found_least"]),
                number(row["as_good"]),
                number(row["lost"]),
                f"{100 * row['share']:.1f} %",
                number(row["seconds"]),
                number(row["score_seconds"]),
                number(row["faster"]),
                number(row["cold_seconds"]),
                number(row["cold_faster"]),
            ]
            for row in own
        ]
        head = ["way", "found", "least", "as good", "lost", "outcomes", "s", "of it scoring"]
        head += ["times faster", "s, compiling", "times faster, compiling"]
        parts.append(
            f"**{case['task']}**: N = {case['num']}, {case['train_items']} items, K = {case['k']}, "
            f"{own[0]['seeds']} seed(s)."
        )
        parts += [markdown_table(head, rows), _steps(table["runs"], case["task"])]
    places = sorted({machine.sentence(run["provenance"]) for run in table["runs"]})
    return "\n\n".join([*parts, *places])


def _steps(runs: Sequence[Mapping[str, Any]], task: str) -> str:
    """The rounds of the first seed, and what the races promise."""
    run = next(run for run in runs if run["task"] == task)
    lines = []
    for way, row in run["ways"].items():
        if row["rounds"]:
            steps = joined_rounds(row["rounds"])
            shown = ", ".join(f"{one['experts']:,} to {one['stop']:,}" for one in steps)
            lines.append(f"* {way}, experts to item: {shown}.")
        if row["guarantee"]:
            lines[-1] += f" {row['guarantee']['sentence']}"
    return f"Seed {run['seed']}:\n\n" + "\n".join(lines)
