"""What an ensemble is compared with at equal cost of inference, and what its gain is made of.

From logged answers alone. Shapes: K kept experts, B test items.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import intervals
from thicket_jax.ensembles.combine import with_weights
from thicket_jax.runs.record import RunRecord

RIGHT = 0.5  # outcomes from here on count as right


@dataclasses.dataclass(frozen=True)
class Voted:
    """An ensemble on the test items.

    Attributes:
      k: the best so many experts.
      combine: the rule's name.
      rule: the rule itself, a function of predictions [k, B, ...]; or of them and weights [k].
      items: float64 [B], graded, in the metric's unit.
    """

    k: int
    combine: str
    rule: Callable[..., Any]
    items: np.ndarray


def compare(record: RunRecord, votes: Sequence[Voted]) -> list[dict[str, Any]]:
    """Returns four rows for every ensemble, all on the same items; empty without the answers.

    `base` is the base, greedy. `self_consistency` is k samples of the base with the ensemble's
    rule, and `random_control` k experts that nobody selected, at the kept experts' sigmas: each
    costs as much as the ensemble. `best_single` is the best kept expert. No train score belongs to
    samples or unselected experts, so that a weighted vote weighs them equally.

    Returns:
      Rows of `name`, `k`, `combine`, `test` and `stderr`; `delta_vs_base` and
      `ensemble_minus_baseline`, each with its interval. Differences are paired over the items.
    """
    answers, base_answers, targets = record.answers, record.base_answers, record.targets
    samples, unselected = record.sample_answers, record.random_answers
    if answers is None or base_answers is None or targets is None:
        return []
    if samples is None or unselected is None:
        return []
    base = record.metric.per_item(base_answers, targets)
    single = record.metric.per_item(answers[0], targets)
    rows = []
    for vote in votes:
        if min(len(samples), len(unselected)) < vote.k:
            continue
        rule = with_weights(vote.rule, np.ones(vote.k, np.float32))
        sampled, control = (
            record.metric.per_item(np.asarray(rule(x[: vote.k])), targets)
            for x in (samples, unselected)
        )
        for name, items in (
            ("base", base),
            ("self_consistency", sampled),
            ("random_control", control),
            ("best_single", single),
        ):
            delta, interval = intervals.paired_difference(items, base)
            ahead, ahead_interval = intervals.paired_difference(vote.items, items)
            rows.append(
                {
                    "name": name,
                    "k": vote.k,
                    "combine": vote.combine,
                    "test": float(items.mean()),
                    "stderr": intervals.standard_error(items),
                    "delta_vs_base": delta,
                    "delta_vs_base_interval": list(interval),
                    "ensemble_minus_baseline": ahead,
                    "ensemble_minus_baseline_interval": list(ahead_interval),
                }
            )
    return rows


def gains(record: RunRecord, votes: Sequence[Voted]) -> dict[str, Any] | None:
    """Splits gains over the base into better reasoning and form; None without both readings.

    A strict reader takes answers in the form that was asked for, a flexible one any that it finds.
    An item counts for `reasons_better` where both found the base wrong and the answer is right
    now; for `format_only` where only the strict one found it wrong and it is right now; for
    `regressed` where the base was right for the strict one and the answer is wrong now.

    Returns:
      `items`, B; `base` and `kept` (mean of the kept experts) with their `strict` and `flexible`
      accuracies; `rows`, for the best single expert and every ensemble, with `name`, `k`,
      `combine` and, for each of the three, `count` and `points` (per 100 items).
    """
    names = ("strict", "flexible")
    columns, base = record.columns, record.base_columns
    if any(name not in columns or name not in base for name in names):
        return None
    if record.answers is None or record.targets is None:
        return None
    strict, flexible = (base[name] >= RIGHT for name in names)
    single = record.metric.per_item(record.answers[0], record.targets)
    everyone = [("best_single", 1, None, single)]
    everyone += [("ensemble", vote.k, vote.combine, vote.items) for vote in votes]  # type: ignore[misc]
    rows = []
    for name, k, combine, items in everyone:
        right = items >= RIGHT
        split = {
            "reasons_better": ~strict & ~flexible & right,
            "format_only": ~strict & flexible & right,
            "regressed": strict & ~right,
        }
        counts = {
            part: {"count": int(here.sum()), "points": float(100 * here.mean())}
            for part, here in split.items()
        }
        rows.append({"name": name, "k": k, "combine": combine, **counts})
    return {
        "items": len(strict),
        "base": {name: _accuracy(base[name]) for name in names},
        "kept": {name: _accuracy(columns[name]) for name in names},
        "rows": rows,
    }


def _accuracy(outcomes: np.ndarray) -> float:
    """The mean; an item on which a model broke down is wrong."""
    return float(np.nan_to_num(outcomes.astype(np.float64)).mean())
