"""Numbers about a neighbourhood, from logged scores alone: density, ranks, intervals.

Shapes: N experts, B items. Scores are higher-is-better; a failed expert is the worst one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis.intervals import wilson_interval
from thicket_jax.errors import ArgumentError


def rank(scores: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Returns each expert's rank, int [N]: 0 is the best, failed experts come last.

    Ties, and the failed among themselves, go to the lower position.

    Args:
      scores: float [N], higher is better; a failed expert's value is not looked at.
      failed: bool [N]; a score that is not finite counts as failed as well.

    Example:
      >>> rank(np.array([1.0, 3.0, np.nan, 3.0]), np.array([False, False, True, False])).tolist()
      [2, 0, 3, 1]
    """
    scores, failed = _scores(scores, failed)
    order = np.lexsort((np.arange(len(scores)), np.where(failed, 0.0, -scores), failed))
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.arange(len(scores))
    return ranks


def density(
    scores: np.ndarray, failed: np.ndarray, sigmas: np.ndarray, base: float
) -> list[dict[str, Any]]:
    """Returns the solution density at margin 0 for every sigma, ascending.

    δ = P[s(θ + σε) ≥ s(θ)], estimated by the share of the experts drawn at that sigma. A
    perturbation that changes nothing counts for ≥, so the share of > stands beside it.

    Args:
      scores: float [N], higher is better.
      failed: bool [N]; failed experts are below the base, and not part of the mean.
      sigmas: float [N].
      base: the base's score on the same items; a base that is not finite has failed itself and
        lies below every expert that has not.

    Returns:
      One dict for each sigma: `sigma` (the shortest decimal of its float32), `n` (with the
      failed), `mean` score (NaN if all failed), `fraction_ge`, `fraction_gt`, and `interval`, the
      Wilson interval of `fraction_ge`.

    Source: Gan and Isola, "Neural Thickets", arXiv 2603.12228, the definition of density.
    """
    scores, failed = _scores(scores, failed)
    sigmas = np.asarray(sigmas, np.float32)
    if sigmas.shape != scores.shape:
        raise ArgumentError(f"sigmas {list(sigmas.shape)} must match scores {list(scores.shape)}")
    threshold = base if math.isfinite(base) else -math.inf
    rows = []
    for sigma in np.unique(sigmas):
        here = sigmas == sigma
        alive = scores[here & ~failed]
        n, at_least = int(here.sum()), int((alive >= threshold).sum())
        rows.append(
            {
                "sigma": float(str(sigma)),
                "n": n,
                "mean": float(alive.mean()) if alive.size else math.nan,
                "fraction_ge": at_least / n,
                "fraction_gt": int((alive > threshold).sum()) / n,
                "interval": list(wilson_interval(at_least, n)),
            }
        )
    return rows


def density_curve(
    scores: np.ndarray,
    failed: np.ndarray,
    sigmas: np.ndarray,
    base: float,
    margins: Sequence[float],
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Returns the solution density δ(m) for every sigma and margin, both ascending.

    δ(m) = P[s(θ + σε) ≥ s(θ) + m], estimated by the share of the experts drawn at that sigma;
    beside it the share of >. Scores are means in float32, so that at a margin other than 0 a
    score within 4 float32 steps of base + m counts as equal to it; at 0 equal means equal.

    Args:
      scores: float [N], higher is better.
      failed: bool [N]; failed experts, and scores that are not finite, are not solutions.
      sigmas: float [N].
      base: the base's score on the same items; a base that is not finite has failed itself, and
        every expert that has not is a solution at any margin.
      margins: m, in the unit of the scores; negative ones ask how many fall no further.
      confidence: between 0 and 1.

    Returns:
      One dict for each sigma and margin: `sigma` (the shortest decimal of its float32), `margin`,
      `n` (with the failed), `fraction_ge` and `fraction_gt` with their Wilson intervals
      `fraction_ge_interval` and `fraction_gt_interval`, which hold for one margin at a time, not
      for a whole curve.

    Raises:
      ArgumentError: shapes that do not fit, a margin that is not finite, or a confidence outside
        (0, 1).

    Source: Gan and Isola, "Neural Thickets", arXiv 2603.12228, the definition of density.
    """
    scores, failed = _scores(scores, failed)
    sigmas = np.asarray(sigmas, np.float32)
    if sigmas.shape != scores.shape:
        raise ArgumentError(f"sigmas {list(sigmas.shape)} must match scores {list(scores.shape)}")
    if not np.isfinite(np.asarray(margins, np.float64)).all():
        raise ArgumentError(f"margins={list(margins)} must be finite, in the unit of the scores")
    rows = []
    for sigma in np.unique(sigmas):
        alive = scores[(sigmas == sigma) & ~failed]
        n = int((sigmas == sigma).sum())
        for margin in sorted({float(m) for m in margins}):
            threshold = base + margin if math.isfinite(base) else -math.inf
            slack = 0.0
            if margin and math.isfinite(base):
                slack = 4 * float(np.finfo(np.float32).eps) * max(abs(base), abs(threshold))
            at_least = int((alive >= threshold - slack).sum())
            above = int((alive > threshold + slack).sum())
            rows.append(
                {
                    "sigma": float(str(sigma)),
                    "margin": margin,
                    "n": n,
                    "fraction_ge": at_least / n,
                    "fraction_ge_interval": list(wilson_interval(at_least, n, confidence)),
                    "fraction_gt": above / n,
                    "fraction_gt_interval": list(wilson_interval(above, n, confidence)),
                }
            )
    return rows


def _scores(scores: np.ndarray, failed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, failed = np.asarray(scores, np.float64), np.asarray(failed, bool)
    if scores.ndim != 1 or failed.shape != scores.shape:
        raise ArgumentError(
            f"scores {list(scores.shape)} and failed {list(failed.shape)} must both be [N]"
        )
    return scores, failed | ~np.isfinite(scores)
