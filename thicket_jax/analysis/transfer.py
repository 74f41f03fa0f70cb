"""Does selection carry over: train scores against test results, the selected against chance.

Shapes: n experts with a result, K selected, S strata (sigmas), R permutations.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from thicket_jax.analysis.correlations import spearman
from thicket_jax.analysis.reliability import complete, logged_items
from thicket_jax.analysis.resampling import CELLS, check_draws
from thicket_jax.errors import ArgumentError
from thicket_jax.runs.record import RunRecord


@dataclasses.dataclass(frozen=True)
class Control:
    """The selected experts against random ones of the same sigmas.

    Attributes:
      selected: the statistic of the selected experts, in the unit of the values.
      random: its mean over random selections with as many experts of each sigma, from all, the
        selected among them.
      difference: selected − random.
      others: the mean of the values of those not selected, each sigma weighted as the selected
        have it; NaN for another statistic, or where a sigma has no others.
      null: (low, high), the middle 95 % of random selections. No interval of the difference: it
        says where chance alone puts the statistic.
      p_value: the share of selections, the observed one among them, whose statistic is at least
        the observed. Never 0; its least is 1/(R + 1).
      k: experts selected.
      n: experts in all, selected and not.
    """

    selected: float
    random: float
    difference: float
    others: float
    null: tuple[float, float]
    p_value: float
    k: int
    n: int


def stratified_control(
    values: np.ndarray,
    selected: np.ndarray,
    strata: np.ndarray,
    *,
    statistic: Callable[[np.ndarray], float] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Control:
    """Tests whether the selected experts are better than random ones of the same sigmas.

    Selection may prefer a sigma at which everybody is better or less noisy; that is no merit of
    the selected. So a random selection takes as many experts of each sigma as the selected have,
    without replacement, from all experts of that sigma, the selected among them.
    p = (b + 1)/(R + 1), where b of R random selections reach the observed statistic. Under the
    null hypothesis, that within a sigma the selected are exchangeable with the others,
    P(p ≤ α) ≤ α. The values must come from other items than the selection.

    Args:
      values: float [n], each expert's result, higher is better; NaN is left out, −inf (failed)
        makes a mean −inf.
      selected: bool [n].
      strata: [n], the sigmas, or any labels.
      statistic: a function of positions int [K] in `values`, ascending, such as the accuracy of
        their vote, higher is better; default the mean of their values.
      draws: R.
      seed: a whole number; equal seeds give equal results.

    Memory: about 4 million numbers at most, or n in each of a few permutations.

    Raises:
      ArgumentError: shapes that do not fit, nobody selected, or no sigma with anybody to compare.

    Source: Phipson and Smyth, "Permutation p-values should never be zero", 2010; Good,
    Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd edition 2005, on blocks.
    """
    values, selected = np.asarray(values, np.float64), np.asarray(selected, bool)
    strata = np.asarray(strata)
    if values.ndim != 1 or values.shape != selected.shape or values.shape != strata.shape:
        raise ArgumentError(
            f"values {list(values.shape)}, selected {list(selected.shape)} and strata "
            f"{list(strata.shape)} must all be [n]"
        )
    check_draws("draws", draws)
    known = np.flatnonzero(~np.isnan(values))
    chosen, labels = selected[known], strata[known]
    if not chosen.any():
        raise ArgumentError("nobody with a result is selected; select at least one expert")
    if not any(0 < chosen[labels == label].mean() < 1 for label in np.unique(labels)):
        raise ArgumentError(
            "no sigma has both selected and other experts, so there is no random one to compare "
            "with; give results of more experts at the selected experts' sigmas"
        )

    def measure(rows: np.ndarray) -> np.ndarray:
        if statistic is None:
            return values[rows].mean(1)
        return np.array([float(statistic(np.sort(row))) for row in rows])

    observed = float(measure(known[chosen][None])[0])
    if math.isnan(observed):
        raise ArgumentError("the statistic of the selected experts is NaN; return a number")
    rng = np.random.default_rng(seed)
    piece = max(1, CELLS // (4 * len(known)))
    null = np.concatenate(
        [
            measure(known[_selections(chosen, labels, min(piece, draws - start), rng)])
            for start in range(0, draws, piece)
        ]
    )
    # Sums of the same values in another order differ by rounding, and are ties.
    slack = 1e-12 * max(abs(observed), 1e-300) if math.isfinite(observed) else 0.0
    reached = int((null >= observed - slack).sum())
    finite = np.isfinite(null).all()
    low, high = np.quantile(null, [0.025, 0.975]) if finite else (-math.inf, float(null.max()))
    middle = float(null.mean()) if finite else -math.inf
    return Control(
        selected=observed,
        random=middle,
        difference=observed - middle if finite else math.nan,
        others=_others(values[known], chosen, labels) if statistic is None else math.nan,
        null=(float(low), float(high)),
        p_value=(reached + 1) / (draws + 1),
        k=int(chosen.sum()),
        n=len(known),
    )


def _others(values: np.ndarray, chosen: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the unselected, each stratum weighted by its selected; NaN where one has none."""
    total = 0.0
    for label in np.unique(labels[chosen]):
        here = labels == label
        rest = values[here & ~chosen]
        if not rest.size:
            return math.nan
        total += (chosen & here).sum() * rest.mean()
    return float(total / chosen.sum())


def _selections(
    chosen: np.ndarray, labels: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions int [draws, K]: of every stratum, as many at random as are chosen in it."""
    parts = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(chosen[members].sum())
        order = np.argsort(rng.random((draws, len(members))), axis=1)[:, :count]
        parts.append(members[order])
    return np.concatenate(parts, axis=1)


def train_test_correlation(
    record: RunRecord, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Returns the rank correlation of train score and test result over the kept experts.

    The kept are the best of the train scores, a narrow slice of them: the correlation over all
    experts is higher than over a slice. `held_out_correlation` has all of them.

    Returns:
      (r, (low, high)) as `correlations.spearman`; positive where better on train is better on
      test, whichever way the metric goes.

    Raises:
      ArgumentError: the run kept no graded answers.
    """
    if not record.gradable:
        raise ArgumentError(_no_answers(record))
    sign = 1.0 if record.metric.higher_is_better else -1.0
    return spearman(record.kept_scores, sign * record.kept_tests(), confidence)


def held_out_correlation(
    items: np.ndarray, failed: np.ndarray | None = None, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Returns the rank correlation of the scores on two random halves of the items.

    What train–test correlation would be with ⌊B/2⌋ items a side, over all experts. The interval
    is for this one cut; `reliability.split_half` averages over cuts.

    Args:
      items: float [N, B]; rows of failed experts or with a NaN are left out.
      failed: bool [N], or None.
      confidence: between 0 and 1.
      seed: a whole number, of the cut.
    """
    outcomes = complete(items, failed)
    B = outcomes.shape[1]
    order = np.random.default_rng(seed).permutation(B)
    if B < 2:
        return math.nan, (-1.0, 1.0)
    one, other = order[: B // 2], order[B // 2 : 2 * (B // 2)]
    return spearman(outcomes[:, one].mean(1), outcomes[:, other].mean(1), confidence)


def control_of_record(record: RunRecord, *, draws: int = 1000, seed: int = 0) -> Control:
    """Returns `stratified_control` of the kept experts' test results against the random control's.

    Where the host reads the answers (text), the random ones were drawn at the kept experts' sigmas
    and never scored on train items; otherwise they are the first experts by position that were
    neither kept nor failed. A result that is not finite is the worst.

    Raises:
      ArgumentError: the run kept no graded answers of either.
    """
    if record.answers is None or record.random_answers is None or record.targets is None:
        raise ArgumentError(_no_answers(record))
    sign = 1.0 if record.metric.higher_is_better else -1.0
    kept = sign * record.kept_tests()
    others = [record.metric.per_item(x, record.targets).mean() for x in record.random_answers]
    values = np.concatenate([kept, sign * np.array(others, np.float64)])
    sigmas = record.sigmas[np.argsort(record.ranks)[: len(kept)]]
    return stratified_control(
        np.where(np.isfinite(values), values, -np.inf),
        np.arange(len(kept) + len(others)) < len(kept),
        np.concatenate([sigmas, _random_sigmas(record)]),
        draws=draws,
        seed=seed,
    )


def _random_sigmas(record: RunRecord) -> np.ndarray:
    """The sigmas of a run's random control, float32 [R]."""
    assert record.answers is not None and record.random_answers is not None
    K, R = len(record.answers), len(record.random_answers)
    if record.strings is not None:
        return record.sigmas[np.argsort(record.ranks)[:K]][:R]
    return record.sigmas[(record.ranks >= K) & ~record.failed][:R]


def held_out_control(
    record: RunRecord, k: int, *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Selects k on a random half of the train items, and tests them on the other half.

    From the log alone, without test answers: the others are all experts of the same sigmas.

    Returns:
      The fields of `Control`, the values being mean scores on the other half.

    Raises:
      ArgumentError: the run logged no item outcomes; fewer than two items; or fewer than k
        experts that did not fail and were scored on every item.
    """
    train = logged_items(record)
    outcomes = complete(train, record.failed)
    counted = ~record.failed & np.isfinite(train).all(1)
    n, B = outcomes.shape
    if not 1 <= k <= n or B < 2:
        raise ArgumentError(f"k={k} of {n} experts on {B} items; choose 1 to {n}, on 2 items")
    order = np.random.default_rng(seed).permutation(B)
    ranked = np.argsort(-outcomes[:, order[: B // 2]].mean(1), kind="stable")
    selected = np.zeros(n, bool)
    selected[ranked[:k]] = True
    judged = outcomes[:, order[B // 2 :]].mean(1)
    found = stratified_control(judged, selected, record.sigmas[counted], draws=draws, seed=seed + 1)
    return dataclasses.asdict(found)


def _no_answers(record: RunRecord) -> str:
    return (
        f"run {record.config['task']} kept no graded test answers of selected and random experts; "
        "run it with test items"
    )
