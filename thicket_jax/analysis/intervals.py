"""Intervals of proportions and means: Wilson, Student, paired differences."""

import math
import statistics

import numpy as np

from thicket_jax.errors import ArgumentError


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a share.

    With p = successes / n and z the normal quantile:
    (p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z·s.e. it stays inside
    [0, 1] and keeps its coverage at shares near 0 and 1, where densities often are.

    Args:
      successes: how many of `n` count, 0 to n.
      n: number of trials; 0 gives (0, 1), as nothing is known.
      confidence: between 0 and 1.

    Returns:
      (low, high), shares.

    Raises:
      ArgumentError: `successes` outside 0..n, or a confidence outside (0, 1).

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Example:
      >>> low, high = wilson_interval(1, 10)
      >>> round(low, 4), round(high, 4)
      (0.0179, 0.4042)
    """
    if n < 0 or not 0 <= successes <= n:
        raise ArgumentError(f"successes={successes} of n={n} must lie in 0..n")
    z = statistics.NormalDist().inv_cdf(_upper_tail(confidence))
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and at n the bound is exact; rounding must not move it past the share itself.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def student_t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """Returns t with P(|T| < t) = confidence for Student's T with `degrees` >= 1 of freedom.

    Inverts the finite series of the distribution for whole degrees of freedom by bisection in
    θ = atan(t / √degrees), to about 1e-12 relative. Costs O(degrees).

    Raises:
      ArgumentError: degrees below 1, or a confidence outside (0, 1).

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Example:
      >>> round(student_t_quantile(9), 4)
      2.2622
    """
    _upper_tail(confidence)
    if degrees < 1:
        raise ArgumentError(f"degrees={degrees} must be at least 1; two items give one degree")
    odd = degrees % 2
    steps = np.arange(2 + odd, degrees - 1, 2, dtype=np.float64)
    ratios = (steps - 1) / steps

    def inside(theta: float) -> float:
        cosine, sine = math.cos(theta), math.sin(theta)
        series = 1 + np.cumprod(ratios * cosine**2).sum()
        if not odd:
            return sine * series
        return 2 / math.pi * (theta + (sine * cosine * series if degrees > 1 else 0.0))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def standard_error(values: np.ndarray) -> float:
    """Returns the standard error of the mean of `values` [B]: s / √B, s with B − 1.

    NaN where it cannot be known: fewer than two values, or one that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.size < 2 or not np.isfinite(values).all():
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(values.size))


def paired_difference(
    a: np.ndarray, b: np.ndarray, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Returns the mean of a − b over the same items and its Student-t interval.

    delta ± t · s.e.(a − b), with t of B − 1 degrees of freedom. Pairing removes what the items
    have in common: an item that is hard for both adds nothing to the interval.

    Args:
      a: float [B], per-item outcomes.
      b: float [B], outcomes of the other side on the same items, in the same order.
      confidence: between 0 and 1.

    Returns:
      (delta, (low, high)) in the unit of the outcomes. With one item, or with outcomes that are
      not finite, nothing bounds the difference: the interval is (−inf, inf).

    Raises:
      ArgumentError: different shapes, or no items.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ArgumentError(
            f"a {list(a.shape)} and b {list(b.shape)} must be outcomes [B] of the same items"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan, (-math.inf, math.inf)
    difference = a - b
    delta = float(difference.mean())
    if a.size == 1:
        return delta, (-math.inf, math.inf)
    half = student_t_quantile(a.size - 1, confidence) * standard_error(difference)
    return delta, (delta - half, delta + half)


def _upper_tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    return (1 + confidence) / 2
