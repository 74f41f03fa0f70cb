"""The upper tail of the score distribution, and what it says of more experts than were scored.

Shapes: N experts, m exceedances of a threshold, R resamples. Scores are higher-is-better; a failed
expert exceeds nothing.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import resampling
from thicket_jax.errors import ArgumentError

LEAST = 30  # exceedances; with fewer the shape is hardly bounded
DIFFERENT = 10  # among them; a handful of steps is no tail


@dataclasses.dataclass(frozen=True, eq=False)
class Tail:
    """A generalised Pareto distribution of what lies above a threshold.

    P(score > u + y | score > u) = (1 + ξ·y/σ)^(−1/ξ).

    Attributes:
      threshold: u, a score.
      shape: ξ. Below 0 the scores end at `endpoint`, more experts soon bring nothing; 0 is an
        exponential tail, each doubling of n brings the same; above 0 it is heavier.
      shape_interval: (low, high).
      scale: σ, in the unit of the scores.
      scale_interval: (low, high).
      endpoint: u − σ/ξ, the highest score that the fit allows; inf where ξ ≥ 0.
      exceedances: m.
      n: N, the experts of the log, with the failed.
      resamples: float64 [R, 3], ξ, σ and the rate m/N of refits, for other intervals.
      confidence: of the intervals.
    """

    threshold: float
    shape: float
    shape_interval: tuple[float, float]
    scale: float
    scale_interval: tuple[float, float]
    endpoint: float
    exceedances: int
    n: int
    resamples: np.ndarray
    confidence: float

    @property
    def rate(self) -> float:
        """The share of experts above the threshold."""
        return self.exceedances / self.n


def fit_tail(
    scores: np.ndarray,
    failed: np.ndarray | None = None,
    *,
    share: float = 0.1,
    confidence: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Tail:
    """Fits a generalised Pareto distribution to the best `share` of the scores.

    The threshold u is the (m + 1)-th best score, m = ⌊share·N⌋; what equals it does not exceed it.
    Choose the share by looking at several: where the shape stays the same, the tail has begun. The
    fit is to experts of one law: give those of one sigma, or of one mixture that you would draw
    again. Scores of few items come in steps and are widened by item noise, and so is their tail.

    Intervals: a parametric bootstrap. R times m exceedances are drawn from the fit and fitted
    again, and the rate is drawn from its binomial distribution; percentiles. They are for the
    distribution above this threshold if it is a generalised Pareto one of ξ > −½, and say nothing
    of the bias where the tail has not begun.

    Args:
      scores: float [N]; what is not finite has failed.
      failed: bool [N], or None.
      share: of the N experts, between 0 and 1.
      confidence: between 0 and 1.
      draws: R.
      seed: a whole number; equal seeds give equal intervals.

    Memory: R·m numbers, times the few at a time that the fit needs.

    Raises:
      ArgumentError: shapes that do not fit, a share or confidence outside (0, 1); fewer than 30
        exceedances, or fewer than 10 different ones.

    Source: Pickands, "Statistical inference using extreme order statistics", 1975; Coles, An
    Introduction to Statistical Modeling of Extreme Values, 2001, chapter 4.
    """
    scores = np.asarray(scores, np.float64)
    failed = np.zeros(scores.shape, bool) if failed is None else np.asarray(failed, bool)
    if scores.ndim != 1 or failed.shape != scores.shape:
        raise ArgumentError(
            f"scores {list(scores.shape)} and failed {list(failed.shape)} must both be [N]"
        )
    if not 0 < share < 1:
        raise ArgumentError(f"share={share!r} must lie between 0 and 1, such as 0.1")
    resampling.check_draws("draws", draws)
    resampling.percentile_interval(np.zeros(1), confidence)
    N = len(scores)
    alive = np.sort(scores[~failed & np.isfinite(scores)])[::-1]
    m = int(share * N)
    if m < LEAST or len(alive) <= m:
        raise ArgumentError(
            f"share={share} of {N} experts is {m} exceedances, {len(alive)} did not fail; a tail "
            f"needs at least {LEAST} exceedances and one below: score more experts, or change share"
        )
    threshold = float(alive[m])
    above = alive[alive > threshold] - threshold
    different = len(np.unique(above))
    if len(above) < LEAST or different < DIFFERENT:
        raise ArgumentError(
            f"{len(above)} scores exceed {threshold:.6g}, {different} of them different; a tail "
            f"needs {LEAST}, {DIFFERENT} of them different: score on more items, or change share"
        )
    shape, scale = (float(x) for x in fit_generalised_pareto(above))
    rng = np.random.default_rng(seed)
    drawn = _excess(rng.random((draws, len(above))), shape, scale)
    shapes, scales = fit_generalised_pareto(drawn)
    rates = rng.binomial(N, len(above) / N, draws) / N
    return Tail(
        threshold=threshold,
        shape=shape,
        shape_interval=resampling.percentile_interval(shapes, confidence),
        scale=scale,
        scale_interval=resampling.percentile_interval(scales, confidence),
        endpoint=threshold - scale / shape if shape < 0 else math.inf,
        exceedances=len(above),
        n=N,
        resamples=np.stack([shapes, scales, rates], 1),
        confidence=confidence,
    )


def expected_best(tail: Tail, ns: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the expected best score of n experts, also of more than were scored.

    With p the rate and S the least of n uniform numbers, the best score is
    u + σ·((S/p)^(−ξ) − 1)/ξ, so its mean is
    u + σ/ξ·(p^ξ·Γ(n + 1)·Γ(1 − ξ)/Γ(n + 1 − ξ) − 1); for ξ = 0 u + σ·(H_n + ln p),
    H_n the harmonic number. Infinite for ξ ≥ 1.

    The tail says nothing of what lies below the threshold, so that n·p, the exceedances to expect,
    has to be at least 5. Far beyond N the interval is wide, and the truth of the law is assumed.

    Args:
      tail: from `fit_tail`.
      ns: numbers of experts.

    Returns:
      One dict for each n: `n`, `expected` and `interval`, scores.

    Raises:
      ArgumentError: an n with fewer than 5 exceedances to expect.

    Source: Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, section 4.3.3;
    the mean over the best of n from E[S^(−ξ)] of a Beta(1, n).
    """
    rows = []
    shapes, scales, rates = tail.resamples.T
    for n in ns:
        if n * tail.rate < 5:
            raise ArgumentError(
                f"n={n} experts have {n * tail.rate:.3g} exceedances to expect; choose at least "
                f"{math.ceil(5 / tail.rate)}, or use subsampling.expected_top below"
            )
        best = _mean_best(
            np.array([tail.shape]), np.array([tail.scale]), np.array([tail.rate]), int(n)
        )
        others = _mean_best(shapes, scales, rates, int(n))
        low, high = resampling.percentile_interval(others, tail.confidence)
        rows.append(
            {
                "n": int(n),
                "expected": tail.threshold + float(best[0]),
                "interval": [tail.threshold + low, tail.threshold + high],
            }
        )
    return rows


def fit_generalised_pareto(exceedances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns shape ξ and scale σ of a generalised Pareto distribution, each [...].

    Zhang and Stephens' estimator: with θ = −ξ/σ, the mean of θ under its profile likelihood and a
    weak prior read off the data's quartile and maximum, on a grid of 20 + ⌊√m⌋ points; then
    ξ = mean ln(1 − θy) and σ = −ξ/θ. It always exists and needs no search, where maximum
    likelihood does not for ξ < −1, and it is nearly as precise where that does.

    Args:
      exceedances: float [..., m], above the threshold, at least 0 and not all 0.

    Memory: one grid point at a time, 2 times the exceedances.

    Raises:
      ArgumentError: a negative or infinite exceedance, or fewer than 2.

    Source: Zhang and Stephens, "A new and efficient estimation method for the generalized Pareto
    distribution", Technometrics 51, 2009.
    """
    y = np.sort(np.asarray(exceedances, np.float64), axis=-1)
    m = y.shape[-1] if y.ndim else 0
    if m < 2 or not np.isfinite(y).all() or (y < 0).any() or (y[..., -1] <= 0).any():
        raise ArgumentError(
            f"exceedances {list(y.shape)} must be at least 2 finite numbers above the threshold"
        )
    points = 20 + math.isqrt(m)
    # The lower quartile; the least that is above 0 where ties at the threshold fill it.
    quartile = y[..., max(int(m / 4 + 0.5) - 1, 0)]
    quartile = np.where(quartile > 0, quartile, np.where(y > 0, y, np.inf).min(-1))
    grid = 1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    thetas = grid / (3 * quartile[..., None]) + 1 / y[..., -1:]
    # θ = 0, an exponential, is the limit; a step of rounding from it is as good.
    thetas = np.where(thetas == 0, 1e-12 / y[..., -1:], thetas)
    shapes = np.stack([_shape(y, thetas[..., i]) for i in range(points)], -1)
    likelihood = m * (np.log(-thetas / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max(-1, keepdims=True))
    theta = (weights * thetas).sum(-1) / weights.sum(-1)
    theta = np.where(theta == 0, 1e-12 / y[..., -1], theta)
    shape = _shape(y, theta)
    return shape, -shape / theta


def _shape(y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return np.log1p(-theta[..., None] * y).mean(-1)


def _excess(uniform: np.ndarray, shape: float, scale: float) -> np.ndarray:
    """Draws of the fit, from numbers in [0, 1): σ·((1 − v)^(−ξ) − 1)/ξ."""
    logs = -np.log1p(-uniform)
    return scale * (np.expm1(shape * logs) / shape if shape else logs)


def _mean_best(shapes: np.ndarray, scales: np.ndarray, rates: np.ndarray, n: int) -> np.ndarray:
    """Mean excess of the best of n over the threshold, [R]."""
    from scipy.special import digamma, gammaln

    near = np.abs(shapes) < 1e-6
    safe = np.where(near | (shapes >= 1), 0.5, shapes)
    rates = np.maximum(rates, 1e-300)
    logs = safe * np.log(rates) + gammaln(n + 1) + gammaln(1 - safe) - gammaln(n + 1 - safe)
    curved = np.expm1(logs) / safe
    straight = digamma(n + 1) - digamma(1) + np.log(rates)
    excess = scales * np.where(near, straight, curved)
    return np.where(shapes >= 1, np.inf, excess)
