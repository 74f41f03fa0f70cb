"""What one run's log says of selecting its best experts, and of sampling more of them.

Everything here comes from logged outcomes. Where a choice is judged, it is judged on other items
than it was made on: half of the train items chooses, the other half judges.
"""

import dataclasses
from typing import Any

import numpy as np

from thicket_jax import regret, subsampling, tails, transfer
from thicket_jax.errors import ArgumentError
from thicket_jax.reliability import logged_items
from thicket_jax.run_record import RunRecord

BEYOND = 10  # times N: as far as the tail is asked


def of_record(record: RunRecord, *, seed: int = 0) -> dict[str, Any] | None:
    """Returns the numbers of selection in one run, as a JSON object; None without item outcomes.

    K is the number of experts that the run kept, at most a quarter of those that did not fail.

    Returns:
      `k`; `held_out`, the rank correlation of the experts' scores on two halves of the items
      (`transfer.held_out_correlation`), and `test`, that of train score and test result over the
      kept ones, each {`value`, `interval`}; `control`, `transfer.held_out_control`; `regret`, rows
      of `regret.of_record` for an eighth, a quarter and half of the items; `best_of`, rows of
      `subsampling.expected_top_curve` over halves of the items, for N/16 to N experts; `needed`,
      the least n whose best K are expected to gain half of what those of all N gain, by the train
      scores (`subsampling.experts_for_gain`); and `tail`, the fit of `tails.fit_tail` with the
      best of N and of 10·N, in the scores' unit, or {`why`} there is none. Entries are None where
      the log does not hold enough.
    """
    try:
        items = logged_items(record)
    except ArgumentError:
        return None
    known = ~record.failed & np.isfinite(items).all(1)
    n, B = int(known.sum()), items.shape[1]
    if n < 4 or B < 2:
        return None
    kept = 10 if record.answers is None else len(record.answers)
    k = max(1, min(kept, n // 4))
    sizes = sorted({max(1, B // part) for part in (8, 4, 2)})
    return {
        "k": k,
        "held_out": _correlation(transfer.held_out_correlation(items, record.failed, seed=seed)),
        "test": _test(record),
        "control": _control(record, k, seed),
        "regret": regret.of_record(record, [k], sizes, seed=seed),
        "best_of": _best_of(record, items, known, k, seed),
        "needed": _needed(record, k),
        "tail": _tail(record, seed),
    }


def _correlation(found: tuple[float, tuple[float, float]]) -> dict[str, Any]:
    value, interval = found
    return {"value": value, "interval": list(interval)}


def _test(record: RunRecord) -> dict[str, Any] | None:
    try:
        return _correlation(transfer.train_test_correlation(record))
    except ArgumentError:
        return None


def _control(record: RunRecord, k: int, seed: int) -> dict[str, Any] | None:
    try:
        return transfer.held_out_control(record, k, seed=seed)
    except ArgumentError:  # no sigma has anybody to compare with
        return None


def _best_of(
    record: RunRecord, items: np.ndarray, known: np.ndarray, k: int, seed: int
) -> list[dict[str, Any]]:
    N, B = items.shape
    order = np.random.default_rng(seed).permutation(B)
    chosen, judged = order[: B // 2], order[B // 2 :]
    base = None
    if record.base_train is not None and np.isfinite(record.base_train).all():
        base = float(record.base_train[judged].mean(dtype=np.float64))
    scores, values = (items[:, part].mean(1, dtype=np.float64) for part in (chosen, judged))
    ns = sorted({n for n in (N // 16, N // 8, N // 4, N // 2, N) if n >= k})
    return subsampling.expected_top_curve(scores, ns, k, ~known, values=values, base=base)


def _needed(record: RunRecord, k: int) -> int | None:
    base, scores, failed = record.base_score, record.scores, record.failed
    try:
        whole = subsampling.expected_top(scores, len(scores), k, failed) - base
        if not whole > 0:
            return None
        return subsampling.experts_for_gain(scores, base, whole / 2, k, failed)
    except ArgumentError:
        return None


def _tail(record: RunRecord, seed: int) -> dict[str, Any]:
    try:
        fit = tails.fit_tail(record.scores, record.failed, seed=seed)
        N = len(record.scores)
        best = tails.expected_best(fit, [N, BEYOND * N])
    except ArgumentError as error:
        return {"why": str(error)}
    found = dataclasses.asdict(fit)
    del found["resamples"]
    return {**found, "best": best}
