"""Bootstrap resamples as counts, and the intervals that come from them.

Shapes: n units, R resamples. A resample of n units with replacement is how often each was drawn.
"""

import math

import numpy as np

from thicket_jax.errors import ArgumentError

CELLS = 4_000_000  # numbers held at a time by what works through resamples in pieces


def check_draws(name: str, draws: int) -> None:
    """Refuses a number of resamples below 1 with an `ArgumentError`."""
    if draws < 1:
        raise ArgumentError(f"{name}={draws} must be at least 1, such as 500")


def bootstrap_counts(n: int, draws: int, seed: int = 0) -> np.ndarray:
    """Returns how often each of n units is drawn, int64 [R, n]; every row sums to n.

    Memory: R·n numbers. Equal arguments give equal counts.

    Args:
      n: number of units, at least 1.
      draws: R, the number of resamples, at least 1.
      seed: a whole number.

    Raises:
      ArgumentError: n or draws below 1.

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    check_draws("draws", draws)
    if n < 1:
        raise ArgumentError(f"n={n} units cannot be resampled; at least 1 is needed")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the middle `confidence` of resampled values [R]: (low, high), in their unit.

    Values that are NaN are left out; if none is left, nothing bounds: (−inf, inf).

    Raises:
      ArgumentError: a confidence outside (0, 1).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Example:
      >>> percentile_interval(np.arange(101.0), 0.5)
      (25.0, 75.0)
    """
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return -math.inf, math.inf
    # Between two values the quantile is interpolated, which infinite ones do not allow.
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    if np.isfinite(known).all():
        low, high = np.quantile(known, ends)
    else:
        low, high = np.quantile(known, ends, method="nearest")
    return float(low), float(high)


def bootstrap_mean(
    values: np.ndarray, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Returns the mean of values [B] and its percentile bootstrap interval over the items.

    For a paired difference pass a − b over the same items. It assumes no shape, so that it suits
    errors with long tails; with fewer than about 20 items it is too narrow, and
    `intervals.paired_difference` is the better one.

    Returns:
      (mean, (low, high)) in the unit of the values. With one item, or with values that are not
      finite, nothing bounds the mean: the interval is (−inf, inf).

    Raises:
      ArgumentError: no values, or not one row of them; a confidence outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ArgumentError(f"values {list(values.shape)} must be [B], with at least one item")
    if not np.isfinite(values).all():
        return math.nan, (-math.inf, math.inf)
    mean = float(values.mean())
    if values.size == 1:
        return mean, (-math.inf, math.inf)
    centred = values - mean  # the sums of large values would lose their last digits
    means = bootstrap_counts(values.size, draws, seed) @ centred / values.size
    low, high = percentile_interval(means, confidence)
    return mean, (mean + low, mean + high)
