"""What is lost by selecting experts on a few noisy items.

Shapes: N experts, n those that count, K selected, B items. Outcomes are higher-is-better.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis.reliability import complete, logged_items
from thicket_jax.analysis.resampling import check_draws
from thicket_jax.errors import ArgumentError
from thicket_jax.runs.record import RunRecord


def selection_regret(
    items: np.ndarray,
    ks: Sequence[int],
    sizes: Sequence[int],
    failed: np.ndarray | None = None,
    *,
    base: np.ndarray | None = None,
    judged_on: str = "rest",
    draws: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns the expected regret of keeping the best K experts on m items.

    In each draw m items are chosen at random without replacement, and the K experts with the
    highest mean on them are kept. All experts are then judged on other items: `achieved` is the
    mean of the kept, `attainable` the mean of the K that are best there, `reference` the base's
    mean, or that of all experts (a random selection). regret = attainable − achieved, and
    lost = regret / (attainable − reference), each of the means over the draws.

    Judged on the rest, `achieved` is unbiased, and `attainable` too high by what luck on the rest
    gives, so the regret is an upper bound; it is the closer, the more items rest. Judged on all
    items, the m among them flatter `achieved`, so that the regret is too low.

    Args:
      items: float [N, B]; rows of failed experts or with a NaN are left out.
      ks: numbers of experts kept.
      sizes: numbers of items m to select on, each at least 1; below B for `"rest"`.
      failed: bool [N], or None.
      base: float [B], the base's outcomes on the same items, or None.
      judged_on: `"rest"` or `"all"`.
      draws: number of draws.
      seed: a whole number; equal seeds give equal results.

    Returns:
      One dict for each K and m: `k`, `items`, `achieved`, `attainable`, `reference`, `regret`, in
      the unit of the outcomes; `spread`, the standard deviation of the regret between draws (the
      luck of the items drawn, no standard error of the mean); `lost`, a share of the attainable
      gain: 0 loses nothing, 1 is no better than the reference; NaN where no gain is attainable.

    Memory: a few times draws·n numbers. Ties go to the lower position.

    Raises:
      ArgumentError: a K above the number of experts that count, a size that leaves no items,
        shapes that do not fit, or another word for `judged_on`.

    Source: expected regret ("opportunity cost") of selection, Chick and Inoue, "New two-stage and
    sequential procedures for selecting the best simulated system", 2001; here by resampling items.
    """
    outcomes = complete(items, failed)
    n, B = outcomes.shape
    reference = None if base is None else np.asarray(base, np.float64)
    if reference is not None and (reference.shape != (B,) or not np.isfinite(reference).all()):
        raise ArgumentError(f"base {list(reference.shape)} must be {B} finite outcomes, like items")
    if judged_on not in ("rest", "all"):
        raise ArgumentError(f"judged_on={judged_on!r} must be 'rest' or 'all'")
    check_draws("draws", draws)
    most = B - 1 if judged_on == "rest" else B
    for k in ks:
        if not 1 <= k <= n:
            raise ArgumentError(
                f"k={k} of {n} experts that did not fail and were scored on every item; "
                f"choose 1 to {n}"
            )
    for size in sizes:
        if not 1 <= size <= most:
            raise ArgumentError(
                f"sizes has {size} of {B} items, judged on {judged_on}; choose 1 to {most}"
            )
    orders = np.argsort(np.random.default_rng(seed).random((draws, B)), axis=1)
    rows = []
    for size in sizes:
        chosen = np.zeros((draws, B), bool)
        np.put_along_axis(chosen, orders[:, :size], True, axis=1)
        judges = ~chosen if judged_on == "rest" else np.ones_like(chosen)
        weights = judges / judges.sum(1, keepdims=True)
        judged = weights @ outcomes.T
        # Stable, so that equal means go to the lower position.
        kept = np.argsort(-(chosen.astype(np.float64) @ outcomes.T), axis=1, kind="stable")
        achieved = np.cumsum(np.take_along_axis(judged, kept, 1), axis=1)
        best = np.cumsum(-np.sort(-judged, axis=1), axis=1)
        level = judged.mean(1) if reference is None else weights @ reference
        for k in ks:
            rows.append(_row(int(k), int(size), achieved[:, k - 1], best[:, k - 1], level))
    return sorted(rows, key=lambda row: (row["k"], row["items"]))


def of_record(
    record: RunRecord,
    ks: Sequence[int],
    sizes: Sequence[int],
    *,
    judged_on: str = "rest",
    draws: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns `selection_regret` on a run's train items, against its base where that was logged.

    Raises:
      ArgumentError: the run logged no item outcomes, or as `selection_regret`.
    """
    base = record.base_train
    if base is not None and not np.isfinite(base).all():
        base = None
    return selection_regret(
        logged_items(record),
        ks,
        sizes,
        record.failed,
        base=base,
        judged_on=judged_on,
        draws=draws,
        seed=seed,
    )


def _row(
    k: int, size: int, achieved: np.ndarray, best: np.ndarray, level: np.ndarray
) -> dict[str, Any]:
    regrets = (best - achieved) / k
    attainable, reference = float(best.mean() / k), float(level.mean())
    regret = float(regrets.mean())
    gain = attainable - reference
    return {
        "k": k,
        "items": size,
        "achieved": float(achieved.mean() / k),
        "attainable": attainable,
        "reference": reference,
        "regret": regret,
        "spread": float(regrets.std(ddof=1)) if len(regrets) > 1 else float("nan"),
        "lost": regret / gain if gain > 0 else float("nan"),
    }
