"""Ensembles of the best K experts, for a list of K, paired with base and best single expert.

Shapes: K experts, best first, B test items.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import intervals
from thicket_jax.ensembles.combine import Combine, combine_rule, with_weights
from thicket_jax.errors import ArgumentError
from thicket_jax.runs.record import RunRecord

PerItem = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sweep_k(
    answers: np.ndarray,
    ks: Sequence[int],
    combine: Combine,
    targets: np.ndarray,
    per_item: PerItem,
    *,
    base_answers: np.ndarray | None = None,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Returns how good ensembles of K are, and by how much better than base and best single.

    Both differences are over the same test items: delta ± t · s.e., as in
    `intervals.paired_difference`. The best single is the first expert, the best on the train items:
    a choice that did not look at the test items. Each interval is for one K; the K that looks best
    among many looks better than it is.

    Args:
      answers: [K, B, ...], best expert first.
      ks: sizes, each from 1 to K.
      combine: a rule, [k, B, ...] → [B, ...].
      targets: [B, ...].
      per_item: (answers [B, ...], targets [B, ...]) → float [B], as `metrics.Metric.per_item`.
      base_answers: [B, ...], or None.
      confidence: between 0 and 1.

    Returns:
      One dict for each K, as they were given: `k`; `test`, mean, and `stderr`, in the metric's
      unit and direction; `minus_base` with `minus_base_interval`, and `minus_best_single` with
      `minus_best_single_interval`. Without base answers the difference is NaN and its interval
      (−inf, inf).

    Raises:
      ArgumentError: a K that is not there, a rule or a metric that does not give one answer and
        one outcome an item.
    """
    answers = np.asarray(answers)
    if answers.ndim < 2 or not answers.shape[0] or not answers.shape[1]:
        raise ArgumentError(f"answers {list(answers.shape)} must be [K, B, ...], best first")
    B = answers.shape[1]
    single = _graded(per_item, answers[0], targets, B)
    base = None
    if base_answers is not None:
        base = _graded(per_item, np.asarray(base_answers), targets, B)
    rows = []
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(answers):
            raise ArgumentError(f"k={k!r} of {len(answers)} experts; choose 1 to {len(answers)}")
        items = _graded(per_item, np.asarray(combine(answers[:k])), targets, B)
        delta, interval = np.nan, (-np.inf, np.inf)
        if base is not None:
            delta, interval = intervals.paired_difference(items, base, confidence)
        ahead, ahead_interval = intervals.paired_difference(items, single, confidence)
        rows.append(
            {
                "k": int(k),
                "test": float(items.mean()),
                "stderr": intervals.standard_error(items),
                "minus_base": float(delta),
                "minus_base_interval": list(interval),
                "minus_best_single": ahead,
                "minus_best_single_interval": list(ahead_interval),
            }
        )
    return rows


def of_record(
    record: RunRecord, ks: Sequence[int], combine: str, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Returns `sweep_k` over a run's kept experts, by the name of a rule in `combine.RULES`.

    A weighted rule takes the experts' train scores.

    Raises:
      ArgumentError: the run kept no graded answers, an unknown rule, or as `sweep_k`.
    """
    if record.answers is None or record.targets is None:
        raise ArgumentError(
            f"run {record.config['task']} kept no graded test answers; run it with test items"
        )
    rule, weights = combine_rule(combine), record.kept_scores
    return sweep_k(
        record.answers,
        ks,
        lambda predictions: with_weights(rule, weights[: len(predictions)])(predictions),
        record.targets,
        record.metric.per_item,
        base_answers=record.base_answers,
        confidence=confidence,
    )


def _graded(per_item: PerItem, answers: np.ndarray, targets: np.ndarray, B: int) -> np.ndarray:
    if answers.shape[:1] != (B,):
        raise ArgumentError(f"answers {list(answers.shape)} must be [{B}, ...], one an item")
    items = np.asarray(per_item(answers, targets), np.float64)
    if items.shape != (B,):
        raise ArgumentError(f"the metric gave {list(items.shape)}; it must give [{B}], one an item")
    return items
