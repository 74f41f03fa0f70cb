"""Scores over a plane through θ: a grid and marked points, scored by the run's own scorer, logged.

Shapes: G points, of which the grid has len(y) × len(x), row by row, and the marks follow.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, RunError, check_count
from thicket_jax.experts.planes import Plane
from thicket_jax.runs import files
from thicket_jax.runs import log as run_log
from thicket_jax.runs.log import RunLog
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.scoring.scores import Scores, concatenate

BASE = "θ"
RELATIVE = 1e-3  # by which an expert's score may differ from its logged one

Tell = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The points of a plane that are scored.

    Attributes:
      x: float64 [P], ascending.
      y: float64 [P], ascending.
      marks: name → (x, y) of points beside the grid; θ is the first.
    """

    x: np.ndarray
    y: np.ndarray
    marks: dict[str, tuple[float, float]]

    @property
    def coordinates(self) -> np.ndarray:
        """All G points, float64 [G, 2]: the grid row by row (x changes first), then the marks."""
        xs, ys = np.meshgrid(self.x, self.y)
        grid = np.stack([xs.ravel(), ys.ravel()], 1)
        return np.concatenate([grid, np.array(list(self.marks.values()), np.float64)])

    def rows(self, values: np.ndarray) -> np.ndarray:
        """The grid's part of values [G], as [len(y), len(x)]."""
        return values[: len(self.x) * len(self.y)].reshape(len(self.y), len(self.x))

    def marked(self, values: np.ndarray) -> dict[str, Any]:
        """The marks' part of values [G], by name."""
        return dict(zip(self.marks, values[len(self.x) * len(self.y) :].tolist(), strict=True))


def grid(plane: Plane, points: int = 21, reach: float | None = None) -> Grid:
    """Returns a square grid around what a plane marks.

    Args:
      plane: a plane through θ.
      points: on each side, at least 2.
      reach: how far the grid goes beyond the marks (and θ) on every side, in the plane's units;
        default 3 for random directions, and half of the marks' extent otherwise.

    Raises:
      ArgumentError: too few points, or a reach that is not positive.
    """
    if check_count("points", points) < 2:
        raise ArgumentError(f"points={points} must be at least 2")
    places = np.array([(0.0, 0.0), *plane.marks.values()])
    low, high = places.min(), places.max()
    if reach is None:
        reach = 3.0 if high == low else (high - low) / 2
    if not (reach > 0 and np.isfinite(reach)):
        raise ArgumentError(f"reach={reach:g} must be positive and finite")
    side = np.linspace(low - reach, high + reach, points)
    return Grid(side, side, {BASE: (0.0, 0.0), **plane.marks})


def score_grid(
    scorer: Scorer,
    plane: Plane,
    where: Grid,
    folder: pathlib.Path | None = None,
    identity: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> Scores:
    """Scores all points of a grid, going on with what `folder` has.

    Args:
      scorer: made for `plane.points(...)`.
      plane: the plane.
      where: its points.
      folder: keeps a log there as it goes; None keeps none.
      identity: JSON values that must be equal for a log to be gone on with.
      tell: called with (points done, G).

    Returns:
      `Scores` of the G points, without items.

    Raises:
      RunError: `folder` has a log of something else, or a damaged one.
    """
    population = plane.points(where.coordinates)
    G = len(population)
    log, pieces = None, []
    if folder is not None:
        log = _open(folder, dict(identity or {}), G)
        pieces = [(start, scores) for start, scores, _ in log.segments()]
    done = np.zeros(G, bool)
    for start, scores in pieces:
        done[start : start + len(scores)] = True
    most = None if log is None else run_log.most_per_call(G)
    try:
        for begin, end in _gaps(done):
            clock = time.monotonic()
            for start, scores in scorer.stream(population[begin:end], most):
                pieces.append((begin + start, scores))
                done[begin + start : begin + start + len(scores)] = True
                now = time.monotonic()
                if log is not None:
                    log.append(begin + start, scores, now - clock)
                clock = now
                if tell is not None:
                    tell(int(done.sum()), G)
    finally:
        if log is not None:
            log.flush()
    pieces.sort(key=lambda piece: piece[0])
    return concatenate([dataclasses.replace(s, items=None) for _, s in pieces])


def _open(folder: pathlib.Path, identity: dict[str, Any], count: int) -> RunLog:
    if (folder / "log" / "identity.json").exists():
        stored = files.read_json(folder / "log" / "identity.json")
        changed = files.differences(stored, identity)
        if changed:
            raise RunError(
                f"{folder.parent} is a landscape of other options or another base: {changed[0]}; "
                "give this one another --name"
            )
        return RunLog.reopen(folder, identity, count)
    return RunLog.create(folder, identity, identity, count)


def _gaps(done: np.ndarray) -> list[tuple[int, int]]:
    """Runs of points that are not done: (first, behind the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], done, [True]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def compare(
    found: Mapping[str, float], logged: Mapping[str, float], step: float = 0.0
) -> list[dict[str, Any]]:
    """Compares marked experts' scores with those that the run logged.

    Args:
      found: name → score here.
      logged: name → score in the log, of the same items.
      step: what one item is worth, where outcomes are 0 or 1: by so much two programs may differ.

    Returns:
      One row for each logged expert: `name`, `score`, `logged`, `tolerance`.

    Raises:
      RunError: one differs by more than 1e-3 of its value, and more than a step.
    """
    rows = []
    for name, wanted in logged.items():
        tolerance = max(RELATIVE * abs(wanted), step)
        row = {"name": name, "score": found[name], "logged": wanted, "tolerance": tolerance}
        if not abs(found[name] - wanted) <= tolerance:
            raise RunError(
                f"{name} scores {found[name]:g} in the plane and {wanted:g} in the log; the base, "
                "the data or the platform is not that of the run"
            )
        rows.append(row)
    return rows


def to_json(
    plane: Plane, where: Grid, tasks: Sequence[Mapping[str, Any]], name: str
) -> dict[str, Any]:
    """Returns landscape.json: the plane, its points and what each task says of them.

    Args:
      plane: the plane.
      where: its points.
      tasks: for each `name`, `metric`, `higher_is_better`, `gains` float [G] (score minus θ's; NaN
        failed), `values` float [G] in the metric's unit, `base`, `checks`.
      name: of the landscape.
    """
    return {
        "name": name,
        "plane": plane.to_json(),
        "x": where.x.tolist(),
        "y": where.y.tolist(),
        "distance": where.rows(plane.distances(where.coordinates)).tolist(),
        "marks": {mark: list(place) for mark, place in where.marks.items()},
        "tasks": [
            {
                **{k: task[k] for k in ("name", "metric", "higher_is_better", "base")},
                "values": where.rows(task["values"]).tolist(),
                "gains": where.rows(task["gains"]).tolist(),
                "marks": {
                    mark: {"value": value, "gain": gain}
                    for (mark, value), gain in zip(
                        where.marked(task["values"]).items(),
                        where.marked(task["gains"]).values(),
                        strict=True,
                    )
                },
                "checks": task["checks"],
            }
            for task in tasks
        ],
    }
