"""How an answer is graded, by name, so that a log can be graded again without its model.

Every metric is used everywhere (base, best expert, ensemble; train and test), in its own unit.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from thicket_jax.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Metric:
    """A named metric.

    `per_item(answers [B, ...], targets [B, ...]) -> float64 [B]` in the metric's own unit.
    `bounds` are the least and the largest outcome there can be, or None.
    """

    name: str
    higher_is_better: bool
    per_item: Callable[[np.ndarray, np.ndarray], np.ndarray]
    bounds: tuple[float, float] | None = None

    def from_score(self, score: float) -> float:
        """Turns a score (higher is better) into the metric's own unit."""
        return score if self.higher_is_better else -score


def _accuracy(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The share of right labels; or, of classes of answers, each one's outcome.

    Args:
      answers: labels [B], or class scores [B, C] of labels; or classes of answers, integer [B],
        of which negative ones abstain.
      targets: labels [B]; or float [B, C], the outcome of answering item b with class c.
    """
    if np.issubdtype(answers.dtype, np.integer) and _is_table(answers, targets):
        found = np.take_along_axis(targets, np.maximum(answers, 0)[..., None], -1)[..., 0]
        return np.where(answers < 0, 0.0, found.astype(np.float64))
    labels = answers.argmax(-1) if answers.ndim == targets.ndim + 1 else answers
    return (labels == targets).astype(np.float64)


def _is_table(answers: np.ndarray, targets: np.ndarray) -> bool:
    return targets.ndim == answers.ndim + 1 and np.issubdtype(targets.dtype, np.floating)


def _mse(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    squared = (answers.astype(np.float64) - targets.astype(np.float64)) ** 2
    return squared.reshape(len(squared), -1).mean(-1)


METRICS = {
    "accuracy": Metric("accuracy", True, _accuracy, (0.0, 1.0)),
    "mse": Metric("mse", False, _mse),
}


def metric(name: str) -> Metric:
    """Returns the metric called `name`; an unknown name is an `ArgumentError`."""
    if name not in METRICS:
        raise ArgumentError(f"metric={name!r} is unknown; choose one of: {', '.join(METRICS)}")
    return METRICS[name]
