"""Ahead, level or behind: one rule for every comparison, applied to the numbers as they come.

In one run, the ensemble is *ahead* of a baseline when the whole 95 % interval of the difference,
paired over the test prompts, lies above zero, *behind* when it lies below, and *level* otherwise.
Level says that this many prompts do not tell the two apart; it does not say that they are equal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

RULE = "majority_vote"
BASELINES = ("base", "self_consistency", "random_control", "best_single")
KINDS = (*BASELINES, "ensemble")
VERDICTS = ("ahead", "level", "behind")


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `summary`, a row for each law and sigma, and `verdicts` of the largest ensemble."""
    runs, ks = table["runs"], table["settings"]["k"]
    return {"summary": summarise(runs, ks), "verdicts": judge(runs, max(ks))}


def accuracy(run: Mapping[str, Any], kind: str, k: int) -> float:
    """Returns a run's test accuracy of a baseline at the cost of k, or of the ensemble of k."""
    return float(_row(run, kind, k)["test"])


def difference(run: Mapping[str, Any], baseline: str, k: int) -> tuple[float, tuple[float, float]]:
    """Returns ensemble of k minus baseline, and its 95 % interval."""
    row = _row(run, baseline, k)
    low, high = row["ensemble_minus_ci95"]
    return row["ensemble_minus_baseline"], (low, high)


def verdict(interval: Sequence[float]) -> str:
    """Returns `ahead`, `level` or `behind`.

    >>> [verdict(x) for x in ((0.01, 0.2), (-0.1, 0.1), (-0.2, -0.01), (0.0, 0.1))]
    ['ahead', 'level', 'behind', 'level']
    """
    low, high = interval
    return "ahead" if low > 0 else "behind" if high < 0 else "level"


def summarise(runs: Sequence[Mapping[str, Any]], ks: Sequence[int]) -> list[dict[str, Any]]:
    """Returns one row for every noise law and sigma, each number a mean over the seeds."""
    rows = []
    for noise, sigma in dict.fromkeys((run["noise"], run["sigma"]) for run in runs):
        own = [run for run in runs if (run["noise"], run["sigma"]) == (noise, sigma)]
        votes = {str(k): _mean(accuracy(run, "ensemble", k) for run in own) for k in ks}
        rows.append(
            {
                "noise": noise,
                "sigma": sigma,
                "seeds": len(own),
                **{kind: _mean(accuracy(run, kind, max(ks)) for run in own) for kind in BASELINES},
                "ensemble": votes,
                "best_train": _mean(run["best"]["train"] for run in own),
                "mean_train": _mean(run["density"]["mean"] for run in own),
                "fraction_ge": _mean(run["density"]["fraction_ge"] for run in own),
                "fraction_gt": _mean(run["density"]["fraction_gt"] for run in own),
                "perfect": _mean(run["perfect"] for run in own),
            }
        )
    return rows


def judge(runs: Sequence[Mapping[str, Any]], k: int) -> list[dict[str, Any]]:
    """Counts the verdicts of the ensemble of k against every baseline, at each sigma and in all.

    Returns:
      Rows of `baseline`, `sigma` (None for all), `runs`, the mean `difference` and the number of
      runs that are `ahead`, `level` and `behind`.
    """
    rows = []
    for baseline in BASELINES:
        for sigma in (*sorted({run["sigma"] for run in runs}), None):
            own = [run for run in runs if sigma is None or run["sigma"] == sigma]
            found = [difference(run, baseline, k) for run in own]
            verdicts = [verdict(interval) for _, interval in found]
            rows.append(
                {
                    "baseline": baseline,
                    "sigma": sigma,
                    "runs": len(own),
                    "difference": _mean(delta for delta, _ in found),
                    **{name: verdicts.count(name) for name in VERDICTS},
                }
            )
    return rows


def _row(run: Mapping[str, Any], kind: str, k: int) -> Mapping[str, Any]:
    if kind == "ensemble":
        rows = [row for row in run["ensemble"] if row["k"] == k]
    else:
        rows = [row for row in run["baselines"] if (row["name"], row["k"]) == (kind, k)]
    return next(row for row in rows if row["combine"] == RULE)


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)
