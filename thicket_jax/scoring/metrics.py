"""How an answer is graded, by name, so that a log can be graded again without its model.

Every metric is used everywhere (base, best expert, ensemble; train and test), in its own unit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, check_choice

_WHOSE = "the answers (of predict_fn, or a combine rule's)"


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

    A row of class scores with a NaN in it has no largest one, and is wrong.

    Args:
      answers: labels [B], or class scores [B, C] of labels; or classes of answers, integer [B],
        of which negative ones abstain.
      targets: labels [B]; or float [B, C], the outcome of answering item b with class c.

    Raises:
      ArgumentError: shapes that do not fit, or numbers that cannot be classes.
    """
    answers, targets = _given("accuracy", answers, targets)
    if np.issubdtype(answers.dtype, np.integer) and _is_table(answers, targets):
        _check_labels("answers", answers, targets.shape[-1])
        found = np.take_along_axis(targets, np.maximum(answers, 0)[..., None], -1)[..., 0]
        return _mean(np.where(answers < 0, 0.0, found.astype(np.float64)))
    scored = answers.ndim == targets.ndim + 1
    labels_of = answers.shape[:-1] if scored else answers.shape
    if labels_of != targets.shape or not targets.ndim:
        raise ArgumentError(
            f"accuracy: {_WHOSE} are {_shown(answers)}, the targets {_shown(targets)}; make the "
            "answers labels of the targets' shape, or scores with one more axis, of the classes"
        )
    if not scored:
        _check_labels("answers", answers)
        _check_labels("targets", targets)
        return _mean(answers == targets)
    _check_labels("targets", targets, answers.shape[-1])
    broken = np.isnan(answers).any(-1)
    return _mean((answers.argmax(-1) == targets) & ~broken)


def _given(name: str, answers: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Answers and targets as arrays, if they are real numbers."""
    found = []
    for whose, value in ((_WHOSE, answers), ("the targets", targets)):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths
            array = np.empty(0, object)
        if array.dtype.kind not in "biuf" and not np.can_cast(array.dtype, np.float64):
            raise ArgumentError(
                f"{name}: {whose} are of type {array.dtype}; give real numbers, or a metric of "
                "your own"
            )
        found.append(array)
    return found[0], found[1]


def _check_labels(whose: str, labels: np.ndarray, classes: int | None = None) -> None:
    """Raises `ArgumentError` unless these can be classes: whole numbers, from 0 to below C.

    An answer may be negative, which abstains, or NaN, which is no answer; both are wrong.
    """
    values = labels.astype(np.float64)
    wrong = ~(np.isfinite(values) & (values == np.round(values)))
    if whose == "answers":
        wrong &= ~np.isnan(values)
    else:
        wrong |= values < 0
    if classes is not None:
        wrong |= values >= classes
    if wrong.any():
        limit = "" if classes is None else f" of {classes}"
        raise ArgumentError(
            f"accuracy: the {whose} are {_shown(labels)} with {values[wrong][0]:g} among them, "
            f"which is no class{limit}; give whole numbers from 0, or use mse for numbers"
        )


def _is_table(answers: np.ndarray, targets: np.ndarray) -> bool:
    is_float = np.issubdtype(targets.dtype, np.floating)
    return is_float and answers.ndim > 0 and targets.shape[:-1] == answers.shape


def _mse(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The squared error of each item, over all its numbers; shapes must be equal."""
    answers, targets = _given("mse", answers, targets)
    if answers.shape != targets.shape or not answers.ndim:
        raise ArgumentError(
            f"mse: {_WHOSE} are {_shown(answers)}, the targets {_shown(targets)}; make their "
            "shapes equal, [B, ...]"
        )
    return _mean((answers.astype(np.float64) - targets.astype(np.float64)) ** 2)


def _mean(outcomes: np.ndarray) -> np.ndarray:
    """The mean of what each item has, float64 [B]."""
    wide = outcomes.astype(np.float64)
    return wide if wide.ndim == 1 else wide.mean(tuple(range(1, wide.ndim)))


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


METRICS = {
    "accuracy": Metric("accuracy", True, _accuracy, (0.0, 1.0)),
    "mse": Metric("mse", False, _mse),
}


def metric(name: str) -> Metric:
    """Returns the metric called `name`; an unknown name is an `ArgumentError`."""
    check_choice("metric", name, METRICS)
    return METRICS[name]


def own_metric(name: str, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Metric:
    """Returns the metric of a user's own function, of which only what it returns is checked."""

    def per_item(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        items, B = np.asarray(function(answers, targets)), len(targets)
        if items.shape != (B,) or items.dtype.kind not in "biuf":
            raise ArgumentError(
                f"metric {name} returned {_shown(items)} for answers {_shown(np.asarray(answers))} "
                f"and targets {_shown(np.asarray(targets))}; return one number per item, [{B}]"
            )
        return items.astype(np.float64)

    return Metric(name, True, per_item)
