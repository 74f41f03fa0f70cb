"""One population on several tasks, from their run directories, as one JSON object.

No model is seen here. Shapes: N experts, M tasks. Scores are higher-is-better.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import (
    discordance,
    regret,
    reliability,
    specialists,
    subsampling,
    tails,
    transfer,
)
from thicket_jax.analysis.density import density_curve
from thicket_jax.analysis.reliability import logged_items
from thicket_jax.errors import ArgumentError, ThicketError
from thicket_jax.runs.record import RunRecord

POINTS = 41  # margins of a drawn curve at most, from 0 to the best expert's gain
BEYOND = 10  # times N: as far as the tail is asked
_FEWEST = 8  # experts for which groups are looked for


def measure(records: Mapping[str, RunRecord], margins: Sequence[float] = (0.0,)) -> dict[str, Any]:
    """Returns what the logs of one population on M tasks say of the thicket, as a JSON object.

    Args:
      records: name → run; equal experts, base parameters and noise.
      margins: m of the tables, in the unit of the scores.

    Returns:
      `tasks`, `num`, `sigma`; for each task `density` (rows of `density.density_curve` at the
      margins), `curve` (the same from 0 to the best expert's gain), `reliability` (rows of
      `reliability.of_record` by ranks, None where no items were logged), `selection` (see
      `selecting`), `base` and `best`; of two
      tasks or more `discordance` (rows of `discordance.of_records`, each with `without_noise`), and
      `specialists`: shares and directions of the principal components, sizes and centres of the
      clusters, of percentile ranks within each sigma (over all sigmas, tasks would agree that
      large steps are worse); None where there are too few experts, or fewer than two tasks that
      order them.

    Raises:
      ArgumentError: no runs, or runs of other experts or other base parameters.
    """
    if not records:
        raise ArgumentError("records is empty; give the runs of one population, one a task")
    runs = list(records.values())
    scores, failed, sigmas = discordance.score_matrix(runs)
    prints = {name: run.config.get("fingerprints", {}) for name, run in records.items()}
    check_bases({name: print_.get("params") for name, print_ in prints.items()})
    found: dict[str, Any] = {
        "tasks": {name: _task(record, margins) for name, record in records.items()},
        "num": len(scores),
        "sigma": [float(str(s)) for s in np.unique(sigmas)],
        "margins": [float(m) for m in margins],
    }
    if len(runs) < 2:
        return found
    rows = discordance.of_records(runs)
    for row in rows:
        row["without_noise"] = _without_noise(row, found["tasks"])
    return {**found, "discordance": rows, "specialists": _specialists(scores, failed, sigmas)}


def check_bases(prints: Mapping[str, Any]) -> None:
    """Refuses tasks, name → fingerprint of the base parameters, that have not the same ones."""
    first, *others = prints
    for name in others:
        if prints[name] != prints[first]:
            raise ArgumentError(
                f"{name} has other base parameters than {first}; experts of different models "
                "cannot be compared"
            )


def _task(record: RunRecord, margins: Sequence[float]) -> dict[str, Any]:
    scores, failed, base = record.scores, record.failed, record.base_score
    best = float(scores[~failed].max()) if not failed.all() else math.nan
    gains = np.unique(scores[~failed] - base)
    steps = np.append(0.0, gains[gains > 0]) if math.isfinite(base) else np.zeros(1)
    if len(steps) > POINTS:
        steps = np.linspace(0, steps[-1], POINTS)
    try:
        rows = reliability.of_record(record, ranks=True)
    except ArgumentError:
        rows = None
    return {
        "task": record.config["task"],
        "metric": record.config["metric"],
        "base": base,
        "best": best,
        "failed": int(failed.sum()),
        "density": density_curve(scores, failed, record.sigmas, base, margins),
        "curve": density_curve(scores, failed, record.sigmas, base, steps.tolist()),
        "reliability": rows,
        "selection": selecting(record),
    }


def _without_noise(row: Mapping[str, Any], tasks: Mapping[str, Any]) -> float | None:
    """D of the row's sigma, corrected for item noise; None where it is not defined."""
    values = []
    for task in tasks.values():
        rows = task["reliability"] or []
        values += [r["value"] for r in rows if r["sigma"] == row["sigma"]]
    if len(values) != len(tasks) or not all(v is not None and v > 0 for v in values):
        return None
    try:
        value = float(discordance.without_noise(np.asarray(row["correlation"]), values))
    except ThicketError:
        return None
    return value if math.isfinite(value) else None


def _specialists(
    scores: np.ndarray, failed: np.ndarray, sigmas: np.ndarray
) -> dict[str, Any] | None:
    places = [np.flatnonzero(sigmas == sigma) for sigma in np.unique(sigmas)]
    ranked = [discordance.percentile_matrix(scores[here], failed[here]) for here in places]
    percentiles = np.concatenate([rows for rows, _ in ranked])
    experts = np.concatenate([here[who] for here, (_, who) in zip(places, ranked, strict=True)])
    if len(experts) < _FEWEST or len(np.unique(percentiles, axis=0)) < 3:
        return None
    parts, groups = specialists.principal_components(percentiles), specialists.clusters(percentiles)
    if len(parts.shares) - len(parts.constant) < 2:
        return None
    return {
        "shares": parts.shares.tolist(),
        "directions": parts.directions.tolist(),
        "coordinates": parts.coordinates[:, :2].tolist(),
        "experts": experts.tolist(),
        "clusters": {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in dataclasses.asdict(groups).items()
        },
    }


def selecting(record: RunRecord, *, seed: int = 0) -> dict[str, Any] | None:
    """Returns what one run's log says of selecting, as a JSON object; None without item outcomes.

    Where a choice is judged, it is judged on other items than it was made on: half of the train
    items chooses, the other half judges.

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
