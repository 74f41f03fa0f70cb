"""One population on several tasks, from their run directories: density, discordance, reliability.

No model is seen here. Shapes: N experts, M tasks. Scores are higher-is-better.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax import discordance, reliability, specialists, survey_selection
from thicket_jax.analysis import density_curve
from thicket_jax.errors import ArgumentError, ThicketError
from thicket_jax.run_record import RunRecord

POINTS = 41  # margins of a drawn curve at most, from 0 to the best expert's gain
_FEWEST = 8  # experts for which groups are looked for


def measure(records: Mapping[str, RunRecord], margins: Sequence[float] = (0.0,)) -> dict[str, Any]:
    """Returns what the logs of one population on M tasks say of the thicket, as a JSON object.

    Args:
      records: name → run; equal experts, base parameters and noise.
      margins: m of the tables, in the unit of the scores.

    Returns:
      `tasks`, `num`, `sigma`; for each task `density` (rows of `analysis.density_curve` at the
      margins), `curve` (the same from 0 to the best expert's gain), `reliability` (rows of
      `reliability.of_record` by ranks, None where no items were logged), `selection` (see
      `survey_selection.of_record`), `base` and `best`; of two
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
        "selection": survey_selection.of_record(record),
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
