"""Spectral discordance: are the experts of several tasks the same ones, or specialists?

Shapes: N experts, M tasks, R resamples, C clusters. The same experts are scored on every task.
Scores are higher-is-better; a failed expert is the worst one of its task, with all that failed; an
expert that was never scored on a task (NaN) is left out of what needs every task.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import resampling
from thicket_jax.analysis.correlations import average_ranks, pearson_matrix, weighted_ranks
from thicket_jax.errors import ArgumentError
from thicket_jax.runs.record import RunRecord


@dataclasses.dataclass(frozen=True, eq=False)
class Discordance:
    """How differently M tasks order N experts.

    Attributes:
      value: D; 0 is generalists (every task orders the experts alike), 1 unrelated specialists;
        at most M/(M − 1). NaN if fewer than two tasks are left.
      interval: (low, high), the percentile bootstrap over experts.
      correlation: float64 [M, M], C; NaN for constant tasks.
      constant: the tasks, as columns, on which all experts score alike: they have no order, and
        are left out of D.
      n: the number of experts that count.
    """

    value: float
    interval: tuple[float, float]
    correlation: np.ndarray
    constant: tuple[int, ...]
    n: int


def percentile_matrix(
    scores: np.ndarray, failed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns every task's scores as percentile ranks, and whom they belong to.

    percentile = (average rank − ½) / n, with rank 1 the worst: strictly between 0 and 1, mean ½.

    Args:
      scores: float [N, M]; −inf has failed, NaN that has not failed was never scored.
      failed: bool [N, M], or [N] for all tasks; None takes −inf alone.

    Returns:
      (percentiles float64 [n, M], experts int [n]): the positions of the n experts that were
      scored, or failed, on every task.

    Raises:
      ArgumentError: shapes that do not fit.

    Source: Gan and Isola, "Neural Thickets", arXiv 2603.12228, spectral discordance; Hazen's
    plotting position for ranks as shares.

    Example:
      >>> percentile_matrix(np.array([[1.0], [3.0], [3.0], [2.0]]))[0][:, 0].tolist()
      [0.125, 0.75, 0.75, 0.375]
    """
    values = _values(scores, failed)
    experts = np.flatnonzero(~np.isnan(values).any(1))
    if not experts.size:
        return np.zeros((0, values.shape[1])), experts
    return (average_ranks(values[experts]) - 0.5) / len(experts), experts


def discordance(
    scores: np.ndarray,
    failed: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Discordance:
    """Returns the spectral discordance D = 1 − mean off-diagonal of C, with its interval.

    C is the Pearson correlation of the tasks' percentile ranks, average ranks for ties (so it is
    Spearman's). Give experts of one sigma: experts of several sigmas agree because larger steps
    are worse on every task, which says nothing of specialists; `by_sigma` does so. Item noise in
    the scores makes tasks look discordant: see `without_noise`.

    The interval resamples experts, ranks them again and takes percentiles. It is that of the
    order which the logged scores have; the items are taken as they are.

    Args:
      scores: float [N, M], as in `percentile_matrix`.
      failed: bool [N, M] or [N], or None.
      confidence: between 0 and 1.
      draws: R, the number of resamples.
      seed: a whole number; equal seeds give equal intervals.

    Memory: about 4 million numbers beside the scores.

    Raises:
      ArgumentError: shapes that do not fit, or a confidence outside (0, 1).

    Source: Gan and Isola, "Neural Thickets", arXiv 2603.12228, spectral discordance; the interval:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Example:
      >>> discordance(np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 9.0]])).value
      0.0
    """
    values = _values(scores, failed)
    resampling.percentile_interval(np.zeros(1), confidence)
    values = values[~np.isnan(values).any(1)]
    n, M = values.shape
    if n == 0:
        return Discordance(math.nan, (-math.inf, math.inf), np.full((M, M), np.nan), (), 0)
    correlation = pearson_matrix(average_ranks(values))
    constant = tuple(int(m) for m in np.flatnonzero((values == values[:1]).all(0)))
    used = np.setdiff1d(np.arange(M), constant)
    value = float(_mean_discordance(correlation[np.ix_(used, used)]))
    if math.isnan(value):
        return Discordance(value, (-math.inf, math.inf), correlation, constant, n)
    resampled = _resampled(values[:, used], draws, seed)
    interval = resampling.percentile_interval(resampled, confidence)
    return Discordance(value, interval, correlation, constant, n)


def without_noise(correlation: np.ndarray, reliabilities: Sequence[float]) -> float:
    """Returns D as it would be of scores without item noise.

    Each correlation is divided by the square root of both tasks' reliabilities,
    C_ij / √(ρ_i·ρ_j), and D = 1 − their mean. Noise pulls C towards 0, so that tasks scored on few
    items look like unrelated ones; this takes it out, at the price of a wider spread. The tasks'
    items must be different ones. Exact for linear correlation, close for that of ranks.

    Args:
      correlation: float [M, M], from `discordance`; NaN rows of constant tasks are left out.
      reliabilities: M numbers, each task's over the same experts, as from
        `reliability.split_half(..., ranks=True)`.

    Returns:
      D; below 0 where chance has it. NaN if a task that counts has no reliability above 0, or
      fewer than two are left.

    Raises:
      ArgumentError: shapes that do not fit.

    Source: Spearman, "The proof and measurement of association between two things", 1904.

    Example:
      >>> without_noise(np.array([[1.0, 0.4], [0.4, 1.0]]), [0.64, 0.25])
      0.0
    """
    C, rho = np.asarray(correlation, np.float64), np.asarray(reliabilities, np.float64)
    if C.ndim != 2 or C.shape != (len(C), len(C)) or rho.shape != (len(C),):
        raise ArgumentError(
            f"correlation {list(C.shape)} must be [M, M] and reliabilities {list(rho.shape)} [M]"
        )
    used = ~np.isnan(np.diag(C))
    rho = rho[used]
    if not (rho > 0).all():
        return math.nan
    scale = np.sqrt(rho)
    return float(_mean_discordance(C[np.ix_(used, used)] / (scale[:, None] * scale[None, :])))


def by_sigma(
    scores: np.ndarray,
    sigmas: np.ndarray,
    failed: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Returns D for every sigma alone, ascending.

    Args:
      scores: float [N, M], as in `percentile_matrix`.
      sigmas: float [N].
      failed: bool [N, M] or [N], or None.
      confidence, draws, seed: as in `discordance`.

    Returns:
      One dict for each sigma: `sigma` (the shortest decimal of its float32), `n`, `discordance`,
      `interval`, `correlation` [M][M] and `constant`, the fields of `Discordance`.

    Raises:
      ArgumentError: shapes that do not fit, or a confidence outside (0, 1).
    """
    values = _values(scores, failed)
    sigmas = np.asarray(sigmas, np.float32)
    if sigmas.shape != values.shape[:1]:
        raise ArgumentError(f"sigmas {list(sigmas.shape)} must be [{len(values)}], one an expert")
    rows = []
    for sigma in np.unique(sigmas):
        found = discordance(values[sigmas == sigma], confidence=confidence, draws=draws, seed=seed)
        rows.append(
            {
                "sigma": float(str(sigma)),
                "n": found.n,
                "discordance": found.value,
                "interval": list(found.interval),
                "correlation": found.correlation.tolist(),
                "constant": list(found.constant),
            }
        )
    return rows


def of_records(
    records: Sequence[RunRecord], *, confidence: float = 0.95, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns `by_sigma` over runs of the same experts on different tasks.

    Raises:
      ArgumentError: the runs do not have the same experts; see `score_matrix`.
    """
    scores, failed, sigmas = score_matrix(records)
    return by_sigma(scores, sigmas, failed, confidence=confidence, draws=draws, seed=seed)


def score_matrix(records: Sequence[RunRecord]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (scores float64 [N, M], failed bool [N, M], sigmas float32 [N]) of several runs.

    Raises:
      ArgumentError: no runs; or a run whose experts are others: another key, generator or noise,
        or other ids, sigmas or signs in its rows.
    """
    if not records:
        raise ArgumentError("records is empty; give the runs of one population, one a task")
    first = records[0]
    for number, record in enumerate(records):
        for name, mine, other in zip(
            ("population", "ids, sigmas and signs"), _who(record), _who(first), strict=True
        ):
            if mine != other:
                raise ArgumentError(
                    f"run {number} ({record.config['task']}) has another {name} than run 0 "
                    f"({first.config['task']}); compare tasks over the same experts: equal key, "
                    "num, sigma and noise"
                )
    scores = np.stack([record.scores for record in records], 1)
    return scores, np.stack([record.failed for record in records], 1), first.sigmas


def _who(record: RunRecord) -> tuple[Any, Any]:
    rows = [(row["id"], row["sigma"], row["sign"]) for row in record.experts["experts"]]
    return record.experts["population"], rows


def _values(scores: np.ndarray, failed: np.ndarray | None) -> np.ndarray:
    """Scores [N, M] in which what failed is −inf."""
    values = np.array(scores, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ArgumentError(f"scores {list(values.shape)} must be [N, M], a column for each task")
    values[np.isinf(values)] = -np.inf
    if failed is None:
        return values
    failed = np.asarray(failed, bool)
    if failed.shape == values.shape[:1]:
        failed = np.broadcast_to(failed[:, None], values.shape)
    if failed.shape != values.shape:
        raise ArgumentError(
            f"failed {list(failed.shape)} must be [N] or [N, M] like scores {list(values.shape)}"
        )
    values[failed] = -np.inf
    return values


def _mean_discordance(correlation: np.ndarray) -> np.ndarray:
    """1 − mean off-diagonal of [..., M, M]; NaN of fewer than two tasks."""
    M = correlation.shape[-1]
    if M < 2:
        return np.full(correlation.shape[:-2], np.nan)
    pairs = correlation[..., ~np.eye(M, dtype=bool)]
    return 1 - pairs.mean(-1)


def _resampled(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """D of every resample [R]; NaN where a task became constant in it."""
    counts = resampling.bootstrap_counts(len(values), draws, seed)
    piece = max(1, resampling.CELLS // (8 * values.size))
    found = [
        _mean_discordance(pearson_matrix(weighted_ranks(values, part), part))
        for part in np.split(counts, range(piece, draws, piece))
    ]
    return np.concatenate(found)
