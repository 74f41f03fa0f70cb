"""When an expert cannot be among the best K any more: bounds on means of items yet to be seen.

Pure numpy. Shapes: S experts, B items in all, m of them seen, K kept.
"""

import math

import numpy as np

BERNSTEIN_RANGE = 7 / 3 + 3 / math.sqrt(2)


def serfling_factor(seen: int, items: int) -> float:
    """Returns ρ, by which drawing without replacement shrinks a variance bound; 0 once all is seen.

    ρ = min(1 − (m − 1)/B, (1 − m/B)(1 + 1/m)) (Bardenet and Maillard 2015, Theorem 2.4).
    """
    return min(1 - (seen - 1) / items, (1 - seen / items) * (1 + 1 / seen))


def radius(
    spread: np.ndarray, width: np.ndarray | float, seen: int, items: int, delta: float
) -> np.ndarray:
    """Returns how far below the mean of the items seen the mean of all B may lie, one-sided.

    The smaller of two bounds, each with probability 1 − δ/2, for m items drawn without replacement
    from B, ρ as in `serfling_factor`, s the standard deviation of the items seen (with 1/m), w the
    width of the interval in which all B lie:

    * empirical Bernstein–Serfling: s·√(2ρL/m) + (7/3 + 3/√2)·w·L/m with L = ln(10/δ)
    * Hoeffding–Serfling: w·√(ρL/(2m)) with L = ln(2/δ)

    The first is the smaller one where items differ little and many are seen, the second where few
    are.

    Args:
      spread: float, s.
      width: float of the same shape, or one for all, w.
      seen: m, 1 to B.
      items: B.
      delta: probability that the mean of all B lies further below.

    Source: Bardenet and Maillard, "Concentration inequalities for sampling without replacement",
    Bernoulli 21 (2015), Theorem 4.3 (at 5δ) and Corollary 2.5.
    """
    if seen >= items:
        return np.zeros(np.shape(spread))
    rho = serfling_factor(seen, items)
    long, short = math.log(10 / delta), math.log(2 / delta)
    bernstein = spread * math.sqrt(2 * rho * long / seen) + BERNSTEIN_RANGE * width * long / seen
    return np.minimum(bernstein, width * math.sqrt(rho * short / (2 * seen)))


def comparisons(num: int, k: int, looks: int) -> int:
    """Returns how many bounds must hold at once for the best K to survive `looks` looks.

    An expert of the true best K is dropped wrongly only if one that is not among them is held to
    be better: K·(N − K) pairs, at each look.
    """
    return max(1, k * (num - k) * looks)


def beaten(
    outcomes: np.ndarray, k: int, items: int, delta: float, width: float | None
) -> np.ndarray:
    """Returns which of S experts cannot be among the best K: bool [S].

    An expert is out when each of the K experts that lead now is better than it for certain: the
    mean of their paired differences on the same m items exceeds its `radius`.

    Args:
      outcomes: float [S, m] on the same items, higher is better, finite.
      k: K.
      items: B.
      delta: of one pair at one look; see `comparisons`.
      width: of the interval in which a difference of two experts lies, which is twice that of an
        outcome; None is a heuristic: the range of that pair's own differences so far and of zero,
        so that not even differences that were all the same decide before enough items are seen.
    """
    S, m = outcomes.shape
    values = outcomes.astype(np.float64)
    order = np.lexsort((np.arange(S), -values.mean(1)))
    out = np.ones(S, bool)
    out[order[:k]] = False
    # The weakest leader first: few experts are left for the others to be compared with.
    for leader in order[:k][::-1]:
        left = np.flatnonzero(out)
        if not left.size:
            break
        ahead = values[leader][None] - values[left]
        if width is None:
            wide = np.maximum(ahead.max(1), 0) - np.minimum(ahead.min(1), 0)
        else:
            wide = np.full(len(left), width)
        out[left] = ahead.mean(1) > radius(ahead.std(1), wide, m, items, delta)
    return out
