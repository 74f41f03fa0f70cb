"""Average ranks, and the correlation of values and of ranks, with their intervals.

Shapes: n units (experts), M columns (tasks), R resamples.
"""

import math
import statistics

import numpy as np

from thicket_jax.errors import ArgumentError


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks of each column, float64 of the same shape [n] or [n, M].

    1 is the lowest value, n the highest; equal values share the mean of their ranks. −inf is the
    lowest; NaN has no rank and is an error.

    Raises:
      ArgumentError: a NaN.

    Example:
      >>> average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist()
      [3.5, 1.0, 3.5, 2.0]
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 1:
        return average_ranks(values[:, None])[:, 0]
    return weighted_ranks(values, np.ones((1, len(values))))[0]


def weighted_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the average ranks within resamples, float64 [R, n, M].

    Value i stands in a resample as often as its count says; its rank is the mean of the ranks of
    all values equal to it: (those below) + (those equal + 1) / 2.

    Args:
      values: float [n, M].
      counts: [R, n], as from `resampling.bootstrap_counts`. Where a count is 0 the rank is that
        which the value would have beside the others, and is to be weighted by 0.

    Memory: a few times R·n·M numbers.
    """
    values = np.asarray(values, np.float64)
    if np.isnan(values).any():
        raise ArgumentError("values hold a NaN, which has no rank; leave such experts out first")
    n = len(values)
    ranks = np.empty((len(counts), *values.shape))
    for m, column in enumerate(values.T):
        order = np.argsort(column, kind="stable")
        ascending = column[order]
        first = np.searchsorted(ascending, ascending, side="left")
        last = np.searchsorted(ascending, ascending, side="right")
        below = np.zeros((len(counts), n + 1))
        np.cumsum(counts[:, order], axis=1, out=below[:, 1:])
        ranks[:, order, m] = (below[:, first] + below[:, last] + 1) / 2
    return ranks


def pearson_matrix(values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Returns Pearson's correlation between all columns, float64 [M, M] or [R, M, M].

    NaN in the rows and columns of a constant one, whose correlation is not defined.

    Args:
      values: float [n, M]; or [R, n, M] with counts, one set of values a resample.
      counts: [R, n]; without it every row counts once.
    """
    values = np.asarray(values, np.float64)
    if counts is None:
        return pearson_matrix(values[None], np.ones((1, len(values))))[0]
    weights = np.asarray(counts, np.float64) / counts.sum(1, keepdims=True)
    present = np.asarray(counts) > 0
    low = np.where(present[..., None], values, np.inf).min(-2)
    high = np.where(present[..., None], values, -np.inf).max(-2)
    centre = np.einsum("rn,rnm->rm", weights, values)
    deviation = values - centre[:, None]
    covariance = np.einsum("rnm,rnl->rml", deviation * weights[..., None], deviation)
    # Constant is asked of the values: rounding leaves a variance of 1e-33 instead of 0.
    variance = np.where(high > low, np.einsum("rmm->rm", covariance), np.nan)
    scale = np.sqrt(variance)
    return np.clip(covariance / (scale[:, :, None] * scale[:, None, :]), -1, 1)


def spearman(
    x: np.ndarray, y: np.ndarray, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Returns Spearman's rank correlation of x and y, and its interval.

    Pearson's r of average ranks, r; and tanh(atanh r ± z·sqrt((1 + r²/2) / (n − 3))).

    Args:
      x: float [n], such as the experts' train scores.
      y: float [n], such as their test scores. A pair of which either is NaN is left out.
      confidence: between 0 and 1.

    Returns:
      (r, (low, high)), each in −1..1; 1 says that the orders are the same. r is NaN where a side
      is constant or fewer than two pairs are left; with fewer than four pairs, or without r, the
      interval is (−1, 1).

    Raises:
      ArgumentError: different shapes, or a confidence outside (0, 1).

    Source: Spearman 1904; the interval: Bonett and Wright, "Sample size requirements for
    estimating Pearson, Kendall and Spearman correlations", Psychometrika 65, 2000.

    Example:
      >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
      (0.5, (-1.0, 1.0))
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ArgumentError(f"x {list(x.shape)} and y {list(y.shape)} must be [n] of the same n")
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    known = ~(np.isnan(x) | np.isnan(y))
    n = int(known.sum())
    if n < 2:
        return math.nan, (-1.0, 1.0)
    r = float(pearson_matrix(average_ranks(np.stack([x[known], y[known]], 1)))[0, 1])
    if n < 4 or math.isnan(r):
        return r, (-1.0, 1.0)
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt((1 + r * r / 2) / (n - 3))
    # An r of 1 in a small sample does not make the truth 1: the next lower r stands in for it.
    limit = 1 - 12 / (n * (n * n - 1))
    inner = math.atanh(min(max(r, -limit), limit))
    return r, (min(r, math.tanh(inner - half)), max(r, math.tanh(inner + half)))
