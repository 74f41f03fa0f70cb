"""Needle, thicket, plateau: three claims, one rule, applied to the numbers as they come.

An expert is said to be *good* when it has at most half of the base's training error. Two numbers
judge a pair of pretraining and target, each the mean over the seeds:

* `ratio`: test error of the ensemble of K over that of the base (geometric mean);
* `share`: the share of the N experts that are good. The threshold is K / N: at or above it, all K
  places of the ensemble can be filled with good experts; below, they cannot.

| claim | pairs | holds for a pair when |
|---|---|---|
| needle: without pretraining, good experts are too rare to find | pretrained on nothing |
  ratio > 1/2 and share < K/N |
| thicket: around a model pretrained on the mixture they are dense | pretrained on `mixed` |
  ratio <= 1/2 and share >= K/N |
| plateau: pretrained on the target's own family there is nothing to gain | pretraining family and
  target family are the same | ratio > 1/2 and share < K/N |
| plateau, on the signal's scale | the same | (base - ensemble) / variance of the target <= 0.05 |

The last is the same claim read in absolute terms: a base whose error is a thousandth of the signal
can still be divided by ten, and nobody would see it. A claim *holds* when it holds for all of its
pairs, *does not hold* when it holds for none, and otherwise holds for so many of so many.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.signals.measure import PAIRS

RATIO = 0.5
ABSOLUTE = 0.05

CLAIMS = {
    "needle": "without pretraining, good experts are too rare to find",
    "thicket": "around a model pretrained on the mixture, good experts are dense",
    "plateau": "pretrained on the target's own family, there is nothing to gain",
    "plateau, on the signal's scale": "the same, with the gain measured in variances of the signal",
}


def judge_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `pairs`, one row each, and `verdicts`, one for each claim."""
    size, runs = table["settings"], table["runs"]
    added = {run["pair"] for run in runs} - set(PAIRS)
    rows = summarise(runs, [*PAIRS, *sorted(added)])
    return {"pairs": rows, "verdicts": judge(rows, size["k"], size["num"])}


def claims_of(pair: str) -> tuple[str, ...]:
    """Returns the claims that a pair `PRETRAIN:TARGET` bears on; several or none."""
    pretrain, _, target = pair.partition(":")
    if pretrain in ("xavier", "kaiming", "orthogonal"):
        return ("needle",)
    if pretrain == "mixed":
        return ("thicket",)
    if pretrain == target.removeprefix("one_"):
        return ("plateau", "plateau, on the signal's scale")
    return ()


def ensemble_error(run: Mapping[str, Any]) -> float:
    """Returns the test error of a run's ensemble by the mean, the task's own rule."""
    return next(row["test"] for row in run["ensemble"] if row["combine"] == "mean")


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the geometric mean of values that are not negative."""
    if min(values) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, values)) / len(values))


def summarise(runs: Sequence[Mapping[str, Any]], pairs: Sequence[str]) -> list[dict[str, Any]]:
    """Returns one row per pair that has runs, over its seeds, in the order of `pairs`.

    Errors and ratio are geometric means, share, gain and seconds are means over the seeds.
    """
    rows = []
    for pair in pairs:
        own = [run for run in runs if run["pair"] == pair]
        if not own:
            continue
        base = [run["base"]["test"] for run in own]
        ensemble = [ensemble_error(run) for run in own]
        gains = [
            (b - e) / run["target_variance"] for b, e, run in zip(base, ensemble, own, strict=True)
        ]
        rows.append(
            {
                "pair": pair,
                "seeds": len(own),
                "base": geometric_mean(base),
                "best": geometric_mean([run["best"]["test"] for run in own]),
                "ensemble": geometric_mean(ensemble),
                "ratio": geometric_mean([e / b for b, e in zip(base, ensemble, strict=True)]),
                "share_gt": sum(run["share_gt"] for run in own) / len(own),
                "share": sum(run["share_half"] for run in own) / len(own),
                "gain": sum(gains) / len(gains),
                "seconds": sum(run["seconds"]["total"] for run in own) / len(own),
            }
        )
    return rows


def judge(rows: Sequence[Mapping[str, Any]], k: int, num: int) -> list[dict[str, Any]]:
    """Applies the rule to the rows of `summarise`; returns one verdict per claim."""
    threshold = k / num

    def holds(claim: str, row: Mapping[str, Any]) -> bool:
        if claim == "thicket":
            return bool(row["ratio"] <= RATIO and row["share"] >= threshold)
        if claim in ("needle", "plateau"):
            return bool(row["ratio"] > RATIO and row["share"] < threshold)
        return bool(row["gain"] <= ABSOLUTE)

    verdicts = []
    for claim, text in CLAIMS.items():
        judged = {row["pair"]: holds(claim, row) for row in rows if claim in claims_of(row["pair"])}
        yes, of = sum(judged.values()), len(judged)
        if not of:
            verdict = "not judged: no runs"
        elif yes == of:
            verdict = "holds"
        else:
            verdict = "does not hold" if not yes else f"holds for {yes} of {of} pairs"
        verdicts.append({"claim": claim, "text": text, "verdict": verdict, "pairs": judged})
    return verdicts
