"""Needle, thicket, plateau, and search against gradients: rules written before the numbers.

An expert is *good* when it has at most half of the base's error on the training sequences
(margin 1/2). δ is the share of good experts at one sigma, pooled over the seeds.

| claim | holds for a target when |
|---|---|
| needle: around random parameters good experts are too rare to find | δ < K/N at every sigma |
| thicket: around the mixture's base they are dense | at some sigma the Wilson interval of δ lies
  above K/N |
| plateau: around the matched base there is nothing to gain | δ < K/N at every sigma |
| denser: at equal change of the function, the mixture's base has more of them than random
  parameters | at the change where the two differ most the mixture's interval lies above, and at
  no change does it lie below |

K/N is the share at which all places of an ensemble can be filled with good experts; the sigmas
are those of the grid, the changes those of the calibration. *Most* above is the largest difference
in size of the two shares, whichever way it points.

Fine-tuning: the ensemble of K is *ahead* of another model at a horizon when the whole 95 %
interval of the mean log ratio of their errors, paired over the test sequences, lies below zero,
*behind* when it lies above, and *level* otherwise. Logarithms, because an error of a roll-out that
has diverged would outweigh all others; errors are held within FLOOR and CEILING first. The claim
"at equal FLOPs, search is at least as good as Adam" *holds* at a horizon when the ensemble is ahead
in more runs than it is behind, *does not hold* when behind in more, and is otherwise a *draw*.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.needle_or_thicket import summary

GOOD = 0.5
FLOOR, CEILING = 1e-9, 1e6
OUTCOMES = ("ahead", "level", "behind")

CLAIMS = {
    "needle": "around random parameters, good experts are too rare to find",
    "thicket": "around a model pretrained on the mixture, good experts are dense",
    "plateau": "around a model pretrained on the target's own family, there is nothing to gain",
    "denser": "at equal change of the function, good experts are denser around the mixture's "
    "model than around random parameters",
}


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the verdicts, and of the pooled shares those that are judged.

    The counts of all are in the cells.
    """
    size = table["settings"]
    pooled = summary.pool(table["neighbourhoods"], size["margins"])
    return {
        "density_verdicts": judge_density(pooled, size["k"], size["num"]),
        "tuning_verdicts": judge_tuning(table["tunings"]),
        "pooled": [row for row in pooled if row["margin"] == GOOD],
    }


def outcome(interval: Sequence[float]) -> str:
    """Returns what an interval of a difference in log error says of the ensemble.

    >>> [outcome(x) for x in ((-2.0, -0.1), (-0.1, 0.1), (0.1, 2.0), (-1.0, 0.0))]
    ['ahead', 'level', 'behind', 'level']
    """
    low, high = interval
    return "ahead" if high < 0 else "behind" if low > 0 else "level"


def judge_density(pooled: Sequence[Mapping[str, Any]], k: int, num: int) -> list[dict[str, Any]]:
    """Applies the first four rules to rows of `summary.pool`; one verdict for each claim.

    Args:
      pooled: rows of `base`, `target`, `sigma` or `change` (the other is None), `margin`,
        `fraction_ge` and its `interval_ge`.
      k: experts kept, K.
      num: of so many, N.
    """
    rows = [row for row in pooled if row["margin"] == GOOD]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    held: dict[str, dict[str, bool]] = {claim: {} for claim in CLAIMS}
    for target in targets:
        own = [row for row in rows if row["target"] == target]
        for claim, base in (("needle", "random"), ("thicket", "mixture"), ("plateau", "matched")):
            grid = [r for r in own if r["base"] == base and r["sigma"] is not None]
            if not grid:
                continue
            if claim == "thicket":
                held[claim][target] = any(row["interval_ge"][0] > k / num for row in grid)
            else:
                held[claim][target] = all(row["fraction_ge"] < k / num for row in grid)
        pairs = _at_equal_change(own)
        if pairs:
            sides = [_side(mixture, random) for mixture, random in pairs]
            gaps = [abs(m["fraction_ge"] - r["fraction_ge"]) for m, r in pairs]
            held["denser"][target] = sides[gaps.index(max(gaps))] > 0 and min(sides) >= 0
    return [
        {"claim": claim, "text": CLAIMS[claim], "verdict": _said(found), "targets": found}
        for claim, found in held.items()
    ]


def _at_equal_change(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Rows of the mixture's base and of random parameters at the same change."""
    found = {(row["base"], row["change"]): row for row in rows if row["change"] is not None}
    changes = sorted({change for _, change in found})
    wanted = [(("mixture", change), ("random", change)) for change in changes]
    return [(found[a], found[b]) for a, b in wanted if a in found and b in found]


def _side(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """1 where one's interval lies above the other's, -1 where below, 0 where they meet."""
    if one["interval_ge"][0] > other["interval_ge"][1]:
        return 1
    return -1 if one["interval_ge"][1] < other["interval_ge"][0] else 0


def _said(held: Mapping[str, bool]) -> str:
    yes, of = sum(held.values()), len(held)
    if not of:
        return "not judged: no runs"
    if yes == of:
        return "holds"
    return f"holds for {yes} of {of} targets" if yes else "does not hold"


def judge_tuning(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Counts, for every opponent and horizon, the runs in which the ensemble is ahead or behind.

    Args:
      runs: each with `comparisons`, rows of `opponent`, `horizon`, `log_ratio` (mean of log₁₀
        ensemble / opponent) and its `ci95`.
    """
    every = [row for run in runs for row in run["comparisons"]]
    found = []
    for opponent, horizon in dict.fromkeys((row["opponent"], row["horizon"]) for row in every):
        own = [row for row in every if (row["opponent"], row["horizon"]) == (opponent, horizon)]
        counts = {name: [outcome(row["ci95"]) for row in own].count(name) for name in OUTCOMES}
        margin = counts["ahead"] - counts["behind"]
        found.append(
            {
                "opponent": opponent,
                "horizon": horizon,
                "runs": len(own),
                "log_ratio": sum(row["log_ratio"] for row in own) / len(own),
                **counts,
                "verdict": "holds" if margin > 0 else "does not hold" if margin < 0 else "a draw",
            }
        )
    return found
