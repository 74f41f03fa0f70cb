"""The claims, and the rule by which the numbers are read, written before the numbers were.

*Density grows with scale*: for one task, one setting and one kind of score, δ(0) with `>` (the
share of experts that are better than their base) of every size and seed is ranked against the
number of parameters. The trend is Kendall's τ between the two, and its p the share of 20,000 random
reorderings of the sizes within each seed with a trend at least as large in absolute value. It
*grows* (τ > 0) or *shrinks* (τ < 0) where p < 0.05; otherwise there is *no trend*. A task counts
for accuracy only where the base has room: the mean base accuracy of every size lies between one
item above 0 and one item below 1. The likelihood of the right answer always has room.

The claim *holds* for a setting where more than half of the tasks that count grow and none shrinks;
it is *reversed* where more than half shrink and none grows; otherwise it is *mixed*.

*Discordance grows with scale*: the same rule on D, with one number for each size and seed.

Added when the numbers had been seen, as it is the paper's own density: the same rule on δ(0) with
`≥` by accuracy. There a task counts wherever its base stands: experts that are right on
everything, around a base that is, are as good as it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEVEL = 0.05
READINGS = (("accuracy", "gt"), ("accuracy", "ge"), ("likelihood", "gt"))
_DRAWS = 20_000


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `verdicts`, of the trained models."""
    trained = [record for record in table["records"] if record["kind"] == "trained"]
    return {"verdicts": judge(trained, table["identity"]["counts"]["items"])}


def trend(sizes: np.ndarray, values: np.ndarray, seeds: np.ndarray) -> tuple[float, float]:
    """Returns Kendall's τ of values with sizes, and its permutation p (two-sided).

    Args:
      sizes: [n], numbers of parameters.
      values: [n].
      seeds: int [n]; sizes are reordered within each.

    Example:
      >>> sizes, seeds = np.tile([1, 2, 3, 4, 5], 3), np.repeat([0, 1, 2], 5)
      >>> tau, p = trend(sizes, sizes * 0.1, seeds)
      >>> tau > 0.9, p < 0.001
      (True, True)
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    i, j = np.triu_indices(len(sizes), 1)
    of_values = np.sign(values[i] - values[j])

    def tau(order: np.ndarray) -> np.ndarray:
        of_sizes = np.sign(order[..., i] - order[..., j])
        scale = np.sqrt((of_sizes**2).sum(-1) * (of_values**2).sum())
        return (of_sizes * of_values).sum(-1) / np.maximum(scale, 1)

    found = float(tau(sizes))
    draw = np.random.default_rng(0)
    orders = np.tile(sizes, (_DRAWS, 1))
    for seed in np.unique(seeds):
        own = np.flatnonzero(seeds == seed)
        orders[:, own] = draw.permuted(orders[:, own], axis=1)
    at_least = np.abs(tau(orders)) >= abs(found) - 1e-12
    return found, float((at_least.sum() + 1) / (_DRAWS + 1))


def word(tau: float, p: float) -> str:
    """Returns `grows`, `shrinks` or `no trend`."""
    return "no trend" if p >= LEVEL or tau == 0 else "grows" if tau > 0 else "shrinks"


def judge(records: Sequence[Mapping[str, Any]], items: int) -> list[dict[str, Any]]:
    """Returns a row for each setting and score: the trend of every task, of D, and the verdicts.

    Args:
      records: of trained models, one for each size, seed and setting.
      items: B, of each task.
    """
    rows = []
    for setting in dict.fromkeys(record["setting"] for record in records):
        for score, which in READINGS:
            own = [r for r in records if r["setting"] == setting]
            sizes = np.array([r["parameters"] for r in own])
            seeds = np.array([r["seed"] for r in own])
            tasks = {}
            for task in own[0][score]["tasks"]:
                if (score, which) == READINGS[0] and not _has_room(own, task, items):
                    tasks[task] = {"word": "no room", "tau": None, "p": None}
                    continue
                at_zero = [r[score]["tasks"][task]["density"][which][0] for r in own]
                tau, p = trend(sizes, np.array(at_zero), seeds)
                tasks[task] = {"word": word(tau, p), "tau": tau, "p": p}
            spread = [r[score]["discordance"]["value"] for r in own]
            known = np.array([x is not None for x in spread])
            apart = {"word": "no trend", "tau": None, "p": None}
            if known.sum() > 2:
                values = np.array([x for x in spread if x is not None])
                tau, p = trend(sizes[known], values, seeds[known])
                apart = {"word": word(tau, p), "tau": tau, "p": p}
            rows.append(
                {
                    "setting": setting,
                    "score": score,
                    "better": {"gt": ">", "ge": "≥"}[which],
                    "tasks": tasks,
                    "density": _verdict([t["word"] for t in tasks.values()]),
                    "discordance": apart,
                }
            )
    return rows


def _has_room(records: Sequence[Mapping[str, Any]], task: str, items: int) -> bool:
    means: dict[int, list[float]] = {}
    for record in records:
        means.setdefault(record["parameters"], []).append(record["accuracy"]["tasks"][task]["base"])
    return all(1 / items <= np.mean(x) <= 1 - 1 / items for x in means.values())


def _verdict(words: Sequence[str]) -> str:
    counted = [word for word in words if word != "no room"]
    grow, shrink = counted.count("grows"), counted.count("shrinks")
    if grow > len(counted) / 2 and not shrink:
        return "holds"
    if shrink > len(counted) / 2 and not grow:
        return "reversed"
    return "mixed" if counted else "no task has room"
