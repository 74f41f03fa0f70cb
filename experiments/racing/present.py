"""The table of the experiment and its targets, from its records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import machine
from experiments.bench.timing import target
from experiments.readme import markdown_table, number
from thicket_jax.reports.numbers import joined_rounds

TARGET_TASK, TARGET_WAY = "signals", "halving, 0.1"
FOUND, SHARE, FASTER = 0.9, 0.1, 6.0


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row per task and way, over its seeds.

    `found`, `as_good`, `lost`, `share` and `seconds` are means; `faster` is the mean over seeds of
    the ratio of full scoring's seconds to this way's; the cold ones are of the first seed.
    """
    rows = []
    for task in dict.fromkeys(run["task"] for run in runs):
        own = [run["ways"] for run in runs if run["task"] == task]
        for way in own[0]:
            mine, full = [ways[way] for ways in own], [ways["full"] for ways in own]
            cold = [(a, b) for a, b in zip(mine, full, strict=True) if a["cold_seconds"]]
            seconds = [row["seconds"]["total"] for row in mine]
            theirs = [row["seconds"]["total"] for row in full]
            rows.append(
                {
                    "task": task,
                    "way": way,
                    "seeds": len(own),
                    "found": _mean([row["found"] for row in mine]),
                    "found_least": min(row["found"] for row in mine),
                    "as_good": _mean([row["as_good"] for row in mine]),
                    "lost": _mean([row["lost"] for row in mine]),
                    "share": _mean([row["share"] for row in mine]),
                    "share_most": max(row["share"] for row in mine),
                    "seconds": _mean(seconds),
                    "score_seconds": _mean([row["seconds"]["score"] for row in mine]),
                    "faster": _mean([b / a for a, b in zip(seconds, theirs, strict=True)]),
                    "cold_seconds": _mean([a["cold_seconds"]["total"] for a, _ in cold]),
                    "cold_faster": _mean(
                        [b["cold_seconds"]["total"] / a["cold_seconds"]["total"] for a, b in cold]
                    ),
                }
            )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def targets(rows: Sequence[Mapping[str, Any]], k: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the targets for halving on signals, and whether they are met."""
    own = [row for row in rows if (row["task"], row["way"]) == (TARGET_TASK, TARGET_WAY)]
    row: Mapping[str, Any] = own[0] if own else {}
    found = row["found"] / k[TARGET_TASK] if row else None
    label = f"{TARGET_TASK}, {TARGET_WAY}: "
    return [
        target(f"{label}share of the true best K found", found, FOUND, True),
        target(f"{label}share of the outcomes, largest over seeds", row.get("share_most"), SHARE,
               False),
        target(f"{label}times faster, nothing to compile", row.get("faster"), FASTER, True),
        target(f"{label}times faster, all compiled anew", row.get("cold_faster"), FASTER, True),
    ]  # fmt: skip


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
