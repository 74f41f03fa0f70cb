"""Scores over a plane through θ: a grid and marked points, scored by the run's own scorer, logged.

Shapes: G points, of which the grid has len(y) × len(x), row by row, and the marks follow.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, RunError, check_count
from thicket_jax.experts.planes import Plane
from thicket_jax.runs.log import RunLog, most_per_call
from thicket_jax.scoring.resuming import Scored, score_missing
from thicket_jax.scoring.scorer import ScorerProtocol
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
    scorer: ScorerProtocol,
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
    log = None if folder is None else _open(folder, dict(identity or {}), G)
    most = None if log is None else most_per_call(G)

    def stream(begin: int, end: int) -> Iterator[tuple[int, Scores]]:
        return scorer.stream(population[begin:end], most=most)

    def say(scored: Scored) -> None:
        if tell is not None:
            tell(int(scored.done.sum()), G)

    try:
        parts, _ = score_missing(stream, G, log, say)
    finally:
        if log is not None:
            log.close()
    return concatenate([dataclasses.replace(scores, items=None) for _, scores in parts])


def _open(folder: pathlib.Path, identity: dict[str, Any], count: int) -> RunLog:
    """Starts the log of a landscape, or goes on with it."""
    if (folder / "config.json").exists():
        return RunLog.reopen(folder, identity, count, mend="give this one another --name")
    return RunLog.create(folder, identity, identity, count)


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
                f"{name} scores {found[name]:.9g} in the plane and {wanted:.9g} in the log; the "
                "base, the data or the platform is not that of the run"
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
