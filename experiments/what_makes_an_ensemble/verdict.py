"""Ahead, level or behind, at one size fixed beforehand; written before the numbers were.

At a size K, a way to make an ensemble is *ahead* of another when the 95 % interval of the
difference, paired over the test items of all seeds, lies above zero and no seed's own interval
lies below; *behind* with the signs changed; else *level*: these items do not tell them apart.
The interval treats the seeds as given: mean of the seeds' differences ± 1.96 · √(Σ s.e.²) / S.
The verdict on a way is that at K = 50; what it is at the other sizes is counted beside it.

*Saturated* is the smallest K whose gain over the base is at least 95 % of the largest over all K.
*Random's share* is the gain of the random control over the base, over that of the top K, K = 50.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SIZE, NEAR = 50, 0.95
AGAINST = ("top", "random", "base")
VERDICTS = ("ahead", "level", "behind")
TOP, RANDOM = "top K", "random"


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `runs` in order, and `verdicts`."""
    order = [case["name"] for case in table["settings"]["cases"]]
    runs = sorted(table["runs"], key=lambda run: (order.index(run["case"]), run["seed"]))
    return {"runs": runs, "verdicts": judge(summarise(runs))}


def pooled(rows: Sequence[Mapping[str, Any]], against: str) -> dict[str, Any] | None:
    """Returns the difference over all seeds with its interval and verdict; None if not compared."""
    found = [row["minus"][against] for row in rows if against in row["minus"]]
    if not found or any(delta is None or error is None for delta, error, *_ in found):
        return None
    S = len(found)
    delta = sum(x[0] for x in found) / S
    half = 1.96 * math.sqrt(sum(x[1] ** 2 for x in found)) / S
    low, high = delta - half, delta + half
    if low > 0 and not any(x[3] < 0 for x in found):
        verdict = "ahead"
    elif high < 0 and not any(x[2] > 0 for x in found):
        verdict = "behind"
    else:
        verdict = "level"
    return {"delta": delta, "low": low, "high": high, "verdict": verdict}


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row for every case, way and size, means over the seeds."""
    rows = []
    for case in dict.fromkeys(run["case"] for run in runs):
        own = [run for run in runs if run["case"] == case]
        keys = dict.fromkeys((row["way"], row["k"]) for row in own[0]["rows"])
        for way, k in keys:
            of = [r for run in own for r in run["rows"] if (r["way"], r["k"]) == (way, k)]
            row: dict[str, Any] = {"case": case, "way": way, "k": k, "seeds": len(of)}
            for name in ("test", "train", "gain_test", "gain_train", "distinct", "alike"):
                row[name] = _mean([x.get(name) for x in of])
            for name in ("error", "mean_error", "diversity"):
                row[name] = _mean([x["squared"][name] for x in of if "squared" in x])
            for against in AGAINST:
                row[f"minus_{against}"] = pooled(of, against)
            rows.append(row)
    return rows


def judge(summary: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one verdict for every case and way against the top K joined plainly.

    `at` is the size judged at: 50, or the largest below that there is.
    """
    verdicts = []
    for case in dict.fromkeys(row["case"] for row in summary):
        own = [row for row in summary if row["case"] == case]
        at = max(row["k"] for row in own if row["k"] <= SIZE)
        for way in dict.fromkeys(row["way"] for row in own):
            mine = [row for row in own if row["way"] == way]
            sizes = {name: [] for name in VERDICTS}
            for row in mine:
                if row["minus_top"] is not None:
                    sizes[row["minus_top"]["verdict"]].append(row["k"])
            (here,) = [row for row in mine if row["k"] == at]
            verdicts.append(
                {
                    "case": case,
                    "way": way,
                    "at": at,
                    "verdict": here["minus_top"]["verdict"] if here["minus_top"] else None,
                    "minus_top": here["minus_top"],
                    "minus_random": here["minus_random"],
                    "gain_test": here["gain_test"],
                    "sizes": sizes,
                    "saturated": saturated([(row["k"], row["gain_test"]) for row in mine]),
                    "of_top": _share(own, here["gain_test"], at),
                }
            )
    return verdicts


def saturated(gains: Sequence[tuple[int, float]]) -> int | None:
    """Returns the smallest K with 95 % of the largest gain; None where nothing is gained.

    >>> saturated([(1, 0.1), (5, 0.29), (10, 0.3)])
    5
    """
    largest = max(gain for _, gain in gains)
    if largest <= 0:
        return None
    return min(k for k, gain in gains if gain >= NEAR * largest)


def _share(own: Sequence[Mapping[str, Any]], gain: float, at: int) -> float | None:
    """A gain as a share of that of the top K of the same size, where that gains anything."""
    (top,) = [row for row in own if (row["way"], row["k"]) == (TOP, at)]
    return gain / top["gain_test"] if top["gain_test"] > 0 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known else None
