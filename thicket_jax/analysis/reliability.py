"""How much of a ranking is the experts, and how much the items that happened to be asked.

Shapes: N experts, n those that count, B items, S splits, R resamples. Outcomes are
higher-is-better. Failed experts, and those that were not scored on every item, are left out.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import resampling
from thicket_jax.analysis.correlations import average_ranks, weighted_ranks
from thicket_jax.errors import ArgumentError
from thicket_jax.runs.record import RunRecord
from thicket_jax.scoring import metrics

RANKED = 20  # splits whose ranks are resampled


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How well a score of B items orders these experts.

    Attributes:
      value: the expected correlation of this score with one of B other items of the same kind; 1
        is no noise, 0 (or below, by chance) nothing but noise. NaN where it is not defined.
      interval: (low, high), the percentile bootstrap over experts; the items as they are.
      noise_share: 1 − value, the share of the scores' variance that is item noise.
      half: the mean correlation of two halves, before the correction.
      n: experts that count.
      items: B.
    """

    value: float
    interval: tuple[float, float]
    noise_share: float
    half: float
    n: int
    items: int


def spearman_brown(reliability: float, factor: float) -> float:
    """Returns the reliability of a score with `factor` times the items: f·r / (1 + (f − 1)·r).

    NaN where the formula has no meaning (a negative r so low that the divisor is not above 0).

    Source: Spearman 1910 and Brown 1910.

    Example:
      >>> spearman_brown(0.5, 2)
      0.6666666666666666
    """
    below = 1 + (factor - 1) * reliability
    return factor * reliability / below if below > 0 else math.nan


def split_half(
    items: np.ndarray,
    failed: np.ndarray | None = None,
    *,
    splits: int = 100,
    ranks: bool = False,
    confidence: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Reliability:
    """Returns the split-half reliability of the experts' mean scores.

    The items are cut at random into two halves of ⌊B/2⌋ (of an odd B one item, another each time,
    is left out); r is the correlation over experts of the two half means, averaged over the
    splits; the Spearman–Brown formula takes it from ⌊B/2⌋ items to B.

    Experts of several sigmas differ more than those of one, so that their reliability is higher:
    give those among whom you choose.

    Args:
      items: float [N, B], outcomes; a row with a NaN is left out.
      failed: bool [N], or None.
      splits: S.
      ranks: correlate ranks instead of means. For outcomes with long tails (squared errors), of
        which one expert would otherwise be the whole correlation; the correction, derived for
        means, is then an approximation.
      confidence: between 0 and 1.
      draws: R, the number of resamples of experts. With ranks, which are made anew in each, only
        20 of the splits are resampled; that widens the interval a little.
      seed: a whole number; equal seeds give equal results.

    Returns:
      A `Reliability`; its value is NaN with one item, with fewer than three experts, or where all
      means are equal.

    Memory: 2·S·n numbers, and about 4 million.

    Raises:
      ArgumentError: shapes that do not fit, or a confidence outside (0, 1).

    Source: Spearman 1910 and Brown 1910; random splits: Pronk, Molenaar, Wiers and Murre, "Methods
    to split cognitive task data for estimating split-half reliability", 2022.
    """
    outcomes = complete(items, failed)
    resampling.check_draws("splits", splits)
    resampling.check_draws("draws", draws)
    n, B = outcomes.shape
    half = B // 2
    nothing = Reliability(math.nan, (-math.inf, math.inf), math.nan, math.nan, n, B)
    resampling.percentile_interval(np.zeros(1), confidence)
    if n < 3 or half == 0:
        return nothing
    left, right = _halves(outcomes, half, splits, seed)
    r = float(_correlation(left, right, np.ones((1, n)), ranks)[0])
    value = spearman_brown(r, B / half)
    if math.isnan(value):
        return nothing
    counts = resampling.bootstrap_counts(n, draws, seed + 1)
    if ranks:
        left, right = left[:, :RANKED], right[:, :RANKED]
    resampled = [spearman_brown(x, B / half) for x in _correlation(left, right, counts, ranks)]
    interval = resampling.percentile_interval(np.array(resampled), confidence)
    return Reliability(value, interval, 1 - value, r, n, B)


def cronbach_alpha(items: np.ndarray, failed: np.ndarray | None = None) -> float:
    """Returns Cronbach's α, the mean of all split-half reliabilities, without drawing any.

    α = B/(B − 1) · (1 − Σ_b var(item b) / var(Σ_b item b)), variances over experts with n − 1.

    Args:
      items: float [N, B]; a row with a NaN is left out.
      failed: bool [N], or None.

    Returns:
      α, at most 1; NaN with one item, one expert, or equal totals.

    Source: Cronbach, "Coefficient alpha and the internal structure of tests", 1951.
    """
    outcomes = complete(items, failed)
    n, B = outcomes.shape
    totals = outcomes.sum(1)
    if n < 2 or B < 2 or _same(totals):
        return math.nan
    return float(B / (B - 1) * (1 - outcomes.var(0, ddof=1).sum() / totals.var(ddof=1)))


def reliability_curve(
    items: np.ndarray,
    sizes: Sequence[int],
    failed: np.ndarray | None = None,
    *,
    splits: int = 100,
    ranks: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns the reliability of a score of m items, for every m of `sizes`.

    Args:
      items: float [N, B]; a row with a NaN is left out.
      sizes: numbers of items, each at least 1; also above B.
      failed: bool [N], or None.
      splits, ranks, seed: as in `split_half`.

    Returns:
      One dict for each size: `items`, m; `measured`, the mean correlation over experts of the
      means of m items and of m others, over the splits (NaN for m above B/2, where there are no
      others); `predicted`, by the Spearman–Brown formula from the reliability of all B.

    Raises:
      ArgumentError: shapes that do not fit, or a size below 1.
    """
    outcomes = complete(items, failed)
    n, B = outcomes.shape
    whole = split_half(outcomes, splits=splits, ranks=ranks, draws=1, seed=seed).value
    rows = []
    for size in sizes:
        if size < 1:
            raise ArgumentError(f"sizes has {size}; a score needs at least 1 item")
        measured = math.nan
        if 2 * size <= B and n >= 3:
            left, right = _halves(outcomes, int(size), splits, seed)
            measured = float(_correlation(left, right, np.ones((1, n)), ranks)[0])
        predicted = spearman_brown(whole, size / B) if B else math.nan
        rows.append({"items": int(size), "measured": measured, "predicted": predicted})
    return rows


def items_for_reliability(reliability: float, items: int, wanted: float) -> float:
    """Returns how many items give the reliability `wanted`, by the Spearman–Brown formula.

    m = B · wanted·(1 − r) / (r·(1 − wanted)), not rounded; inf where r is 0 or below.

    Args:
      reliability: r, of a score of B items.
      items: B.
      wanted: between 0 and 1.

    Raises:
      ArgumentError: `wanted` outside (0, 1).

    Example:
      >>> items_for_reliability(0.5, 200, 0.75)
      600.0
    """
    if not 0 < wanted < 1:
        raise ArgumentError(f"wanted={wanted!r} must lie between 0 and 1, such as 0.8")
    if math.isnan(reliability):
        return math.nan
    if reliability <= 0:
        return math.inf
    odds = wanted / (1 - wanted)
    return max(0.0, items * odds * (1 - reliability) / reliability)


def of_record(
    record: RunRecord, *, splits: int = 100, ranks: bool | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the split-half reliability of a run's train scores: of all experts, then per sigma.

    Args:
      record: the run.
      splits, seed: as in `split_half`.
      ranks: as in `split_half`; None takes ranks where the metric is an error (lower is better).

    Returns:
      Dicts of `sigma` (None for all experts) and the fields of `Reliability`.

    Raises:
      ArgumentError: the run logged no item outcomes.
    """
    train = logged_items(record)
    # A program's own metric that no file can hold is not needed to read logged outcomes.
    metric = record.grader or metrics.METRICS.get(record.config["metric"])
    errors = metric is not None and not metric.higher_is_better
    by_ranks = errors if ranks is None else ranks
    rows = []
    for sigma in (None, *np.unique(record.sigmas)):
        here = np.ones(len(train), bool) if sigma is None else record.sigmas == sigma
        found = split_half(
            train[here], record.failed[here], splits=splits, ranks=by_ranks, seed=seed
        )
        name = None if sigma is None else float(str(sigma))
        rows.append({"sigma": name, **dataclasses.asdict(found)})
    return rows


def logged_items(record: RunRecord) -> np.ndarray:
    """Returns a run's train outcomes [N, B]; an `ArgumentError` if it logged none."""
    if record.train is None:
        raise ArgumentError(
            f"run {record.config['task']} logged no outcomes of single items; "
            "score with keep_items=True"
        )
    return record.train


def complete(items: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray:
    """Returns the rows of experts that did not fail and were scored on every item, [n, B].

    Raises:
      ArgumentError: items that are not [N, B], or failed that is not [N].
    """
    outcomes = np.asarray(items, np.float64)
    if outcomes.ndim != 2:
        raise ArgumentError(f"items {list(outcomes.shape)} must be [N, B], a row for each expert")
    failed = np.zeros(len(outcomes), bool) if failed is None else np.asarray(failed, bool)
    if failed.shape != outcomes.shape[:1]:
        raise ArgumentError(f"failed {list(failed.shape)} must be [{len(outcomes)}], like items")
    return outcomes[~failed & np.isfinite(outcomes).all(1)]


def _halves(
    outcomes: np.ndarray, size: int, splits: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of two disjoint draws of `size` items, each [n, S]."""
    B = outcomes.shape[1]
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((splits, B)), axis=1)
    picked = np.zeros((2, splits, B))
    for side in range(2):
        part = order[:, side * size : (side + 1) * size]
        np.put_along_axis(picked[side], part, 1 / size, axis=1)
    # Sums about the median expert keep the digits of large outcomes, and equal experts equal;
    # about the mean, one divergent expert would take the digits of all others.
    centred = outcomes - np.median(outcomes, axis=0)
    return centred @ picked[0].T, centred @ picked[1].T


def _correlation(
    left: np.ndarray, right: np.ndarray, counts: np.ndarray, ranks: bool
) -> np.ndarray:
    """The mean over splits of the correlation over resampled experts, [R]; NaN where undefined."""
    n, S = left.shape
    if not ranks:
        return _weighted_pearson(left - left.mean(0), right - right.mean(0), counts)
    if len(counts) == 1:
        return _weighted_pearson(average_ranks(left), average_ranks(right), counts)
    found = []
    piece = max(1, resampling.CELLS // (8 * n * S))
    for part in np.split(counts, range(piece, len(counts), piece)):
        a, b = weighted_ranks(left, part), weighted_ranks(right, part)
        middle = (part.sum(1)[:, None, None] + 1) / 2
        weights = part[..., None]
        covariance = (weights * (a - middle) * (b - middle)).sum(1)
        scale = (weights * (a - middle) ** 2).sum(1) * (weights * (b - middle) ** 2).sum(1)
        found.append(_mean_ratio(covariance, scale))
    return np.concatenate(found)


def _weighted_pearson(left: np.ndarray, right: np.ndarray, counts: np.ndarray) -> np.ndarray:
    weights = counts / counts.sum(1, keepdims=True)
    mean_left, mean_right = weights @ left, weights @ right
    covariance = weights @ (left * right) - mean_left * mean_right
    var_left = weights @ left**2 - mean_left**2
    var_right = weights @ right**2 - mean_right**2
    # What is left of a variance by rounding alone is none.
    tiny = 1e-12 * (weights @ left**2) * (weights @ right**2)
    scale = np.maximum(var_left, 0) * np.maximum(var_right, 0)
    return _mean_ratio(covariance, np.where(scale > tiny, scale, 0))


def _mean_ratio(covariance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean over splits of covariance / sqrt(scale); splits of scale 0 have no correlation."""
    defined = scale > 0
    ratio = np.where(defined, covariance, 0) / np.sqrt(np.where(defined, scale, 1))
    count = defined.sum(1)
    return np.where(count > 0, ratio.sum(1) / np.maximum(count, 1), np.nan)


def _same(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())
