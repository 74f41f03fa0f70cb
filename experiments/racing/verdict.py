"""What the ways found and took, over the seeds, and the targets for halving; from records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.timing import target
from thicket_jax.selection.race import restated

TARGET_TASK, TARGET_WAY = "signals", "halving, 0.1"
FOUND, SHARE, FASTER = 0.9, 0.1, 6.0


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `runs` in order, `summary`, a row for each task and way, and `targets`."""
    cases = table["settings"]["cases"]
    order = [case["task"] for case in cases]
    runs = sorted(table["runs"], key=lambda run: (order.index(run["task"]), run["seed"]))
    runs = [_restated(run, cases[order.index(run["task"])]) for run in runs]
    rows = summarise(runs)
    return {
        "runs": runs,
        "summary": rows,
        "targets": targets(rows, {case["task"]: case["k"] for case in cases}),
    }


def _restated(run: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    """A run whose races say what this release says of what they counted."""
    sizes = case["num"], case["train_items"], case["k"]
    ways = {
        way: {**row, "guarantee": row["guarantee"] and restated(row["guarantee"], *sizes)}
        for way, row in run["ways"].items()
    }
    return {**run, "ways": ways}


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
