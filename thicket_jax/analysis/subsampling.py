"""How many experts are needed: the best of n, from a log of N.

Shapes: N experts logged, n drawn of them, K kept of those. Scores are higher-is-better; a failed
expert counts with the lowest score of those that did not fail.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import resampling
from thicket_jax.errors import ArgumentError

SHARE = 0.05  # the most of a log, over K, for which resampling gives an interval


def expected_top(
    scores: np.ndarray,
    n: int,
    k: int = 1,
    failed: np.ndarray | None = None,
    *,
    values: np.ndarray | None = None,
) -> float:
    """Returns the expected mean of the best K of n experts drawn from the log; exact.

    Σ_j w_j·x_(j), x_(0) the best, w_j the probability that expert j is drawn without replacement
    and fewer than K better ones are, over K:
    w_j = Σ_{r<K} C(j, r)·C(N − 1 − j, n − 1 − r) / (K·C(N, n)). Of n = N it is the mean of the best
    K of the log; of K = n the mean of all. It never falls with n.

    Args:
      scores: float [N], by which the best are chosen; what is not finite has failed.
      n: K to N.
      k: 1 to n.
      failed: bool [N], or None.
      values: float [N], what the mean is taken of, such as scores on other items, which selection
        does not flatter; default the scores themselves. Failed experts take the lowest.

    Returns:
      The mean, in the unit of the values.

    Raises:
      ArgumentError: shapes that do not fit, all failed, or not 1 ≤ K ≤ n ≤ N.

    Source: David and Nagaraja, Order Statistics, 3rd edition 2003, sampling from a finite
    population.

    Example:
      >>> round(expected_top(np.array([1.0, 2.0, 3.0]), 2), 9)  # of 12, 13, 23: (2 + 3 + 3) / 3
      2.666666667
    """
    ordered = _ordered(scores, failed, values)
    return float(_weights(len(ordered), n, k) @ ordered)


def expected_top_curve(
    scores: np.ndarray,
    ns: Sequence[int],
    k: int = 1,
    failed: np.ndarray | None = None,
    *,
    values: np.ndarray | None = None,
    base: float | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns `expected_top` for every n, with an interval that resamples the log.

    The interval is for the population of experts that the log is a sample of. It exists where a
    log of N says enough of it: for n/K up to a twentieth of N. Beyond, the few best experts of the
    log decide, and resampling them is known to fail: the interval is then (NaN, NaN), and `tails`
    may help. At the limit it covers a little less than it says (.93 for normal scores, .87 for
    Student's t with 4 degrees of freedom, N = 300).

    Args:
      scores, k, failed, values: as in `expected_top`.
      ns: numbers of experts, each from K to N.
      base: the base's value, or None.
      confidence: between 0 and 1.
      draws: R, the number of resamples.
      seed: a whole number; equal seeds give equal intervals.

    Returns:
      One dict for each n, as they were given: `n`, `k`, `expected`, `interval`, and `gain`,
      expected − base (NaN without it).

    Memory: a few times R·N numbers.

    Raises:
      ArgumentError: as `expected_top`, or a confidence outside (0, 1).

    Source: as `expected_top`; where the bootstrap of a maximum fails: Bickel and Freedman, "Some
    asymptotic theory for the bootstrap", 1981.
    """
    ordered = _ordered(scores, failed, values)
    N = len(ordered)
    resampling.percentile_interval(np.zeros(1), confidence)
    last = np.cumsum(resampling.bootstrap_counts(N, draws, seed), axis=1)
    rows = []
    for n in ns:
        weights = _weights(N, n, k)
        expected, interval = float(weights @ ordered), (math.nan, math.nan)
        if n <= N * k * SHARE:
            # An expert that is drawn c times takes c places in the order, one after another.
            total = np.concatenate([[0.0], np.cumsum(weights)])
            parts = np.diff(total[last], axis=1, prepend=0.0)
            interval = resampling.percentile_interval(parts @ ordered, confidence)
        rows.append(
            {
                "n": int(n),
                "k": int(k),
                "expected": expected,
                "interval": list(interval),
                "gain": math.nan if base is None else expected - base,
            }
        )
    return rows


def experts_for_gain(
    scores: np.ndarray,
    base: float,
    gain: float,
    k: int = 1,
    failed: np.ndarray | None = None,
) -> int | None:
    """Returns the smallest n whose best K are expected to gain that much over the base.

    The least n with `expected_top(scores, n, k)` ≥ base + gain, by bisection, as the expectation
    never falls with n.

    Args:
      scores: float [N].
      base: the base's score.
      gain: in the unit of the scores.
      k: 1 to N.
      failed: bool [N], or None.

    Returns:
      n, from K to N; None where all N of the log do not reach the gain.

    Raises:
      ArgumentError: as `expected_top`, or a base or gain that is not finite.
    """
    if not (math.isfinite(base) and math.isfinite(gain)):
        raise ArgumentError(f"base={base} and gain={gain} must be finite")
    ordered = _ordered(scores, failed, None)
    wanted = base + gain

    def reached(n: int) -> bool:
        return float(_weights(len(ordered), n, k) @ ordered) >= wanted

    low, high = k, len(ordered)
    if not reached(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return low


def resampled_top(
    scores: np.ndarray,
    ns: Sequence[int],
    k: int,
    statistic: Callable[[np.ndarray], float],
    failed: np.ndarray | None = None,
    *,
    draws: int = 100,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns what the best K of n drawn experts are worth, for what has no formula (their vote).

    Args:
      scores: float [N], by which the best are chosen; ties go to the lower position.
      ns: numbers of experts, each from K to N.
      k: 1 to the least n.
      statistic: positions int [K] in `scores`, best first → a number. A failed expert is among
        them only where fewer than K of those drawn did not fail.
      failed: bool [N], or None.
      draws: subsamples for each n.
      seed: a whole number; equal seeds give equal results.

    Returns:
      One dict for each n: `n`, `k`, `expected`, the mean over subsamples; `spread`, their standard
      deviation, how different one search of n is from another (subsamples share experts, so that
      near n = N it goes to 0); and `stderr`, that of `expected` for so many draws.

    Raises:
      ArgumentError: as `expected_top`.
    """
    resampling.check_draws("draws", draws)
    order = _order(*_checked(scores, failed))
    N = len(order)
    rng = np.random.default_rng(seed)
    rows = []
    for n in ns:
        _check_sizes(N, n, k)
        results = np.empty(draws)
        for draw in range(draws):
            places = np.sort(rng.choice(N, n, replace=False))[:k]
            results[draw] = statistic(order[places])
        spread = float(results.std(ddof=1)) if draws > 1 else math.nan
        rows.append(
            {
                "n": int(n),
                "k": int(k),
                "expected": float(results.mean()),
                "spread": spread,
                "stderr": spread / math.sqrt(draws),
            }
        )
    return rows


def _weights(N: int, n: int, k: int) -> np.ndarray:
    """w_j of `expected_top`, [N], best first; they sum to 1."""
    _check_sizes(N, n, k)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, N + 1)))])

    def choose(a: np.ndarray, b: int) -> np.ndarray:
        inside = (b >= 0) & (b <= a)
        left = np.where(inside, a - b, 0)
        return np.where(inside, logs[a] - logs[max(b, 0)] - logs[left], -np.inf)

    j = np.arange(N)
    whole = choose(np.array([N]), n)[0]
    weights = np.zeros(N)
    for r in range(k):
        weights += np.exp(choose(j, r) + choose(N - 1 - j, n - 1 - r) - whole)
    return weights / weights.sum()


def _ordered(
    scores: np.ndarray, failed: np.ndarray | None, values: np.ndarray | None
) -> np.ndarray:
    """Values [N], best score first; failed experts last, with the lowest value."""
    scores, failed = _checked(scores, failed)
    taken = scores if values is None else np.asarray(values, np.float64)
    if taken.shape != scores.shape or not np.isfinite(taken[~failed]).all():
        raise ArgumentError(
            f"values {list(taken.shape)} must be finite [{len(scores)}] wherever an expert did "
            "not fail"
        )
    filled = np.where(failed, taken[~failed].min(), taken)
    return filled[_order(scores, failed)]


def _order(scores: np.ndarray, failed: np.ndarray) -> np.ndarray:
    return np.lexsort((np.arange(len(scores)), np.where(failed, 0.0, -scores), failed))


def _checked(scores: np.ndarray, failed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, np.float64)
    failed = np.zeros(scores.shape, bool) if failed is None else np.asarray(failed, bool)
    if scores.ndim != 1 or failed.shape != scores.shape:
        raise ArgumentError(
            f"scores {list(scores.shape)} and failed {list(failed.shape)} must both be [N]"
        )
    failed = failed | ~np.isfinite(scores)
    if failed.all():
        raise ArgumentError(f"all {len(scores)} experts failed, so there is no best one")
    return scores, failed


def _check_sizes(N: int, n: int, k: int) -> None:
    if not 1 <= k <= n <= N:
        raise ArgumentError(f"k={k} and n={n} of {N} experts must be 1 ≤ k ≤ n ≤ {N}")
