"""What scoring N experts gives, and how parts of it are joined."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError, ThicketError

ScoreFn = Callable[[Any, Any], Any]
"""`(params, batch) -> float [] or [B]`; pure; higher is better; [B] are per-item outcomes."""


@dataclasses.dataclass(frozen=True)
class Graded:
    """What a grade may return instead of a bare float32 [n, B].

    Attributes:
      items: float32 [n, B], outcomes, higher is better; NaN: this expert failed.
      answers: object [n, B] of `str` or None, canonical answers; equal strings are one answer.
      columns: name → float32 [n, B], further outcomes; `tokens`, generated tokens, is one. A
        grade returns the same names every time.
      texts: object [n, B] of `str`, what was answered in full; not kept for training items.
    """

    items: np.ndarray
    answers: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: np.ndarray | None = None


Grade = Callable[[Any], np.ndarray | Graded]
"""`outputs [n, B, ...] -> float32 [n, B]` or `Graded`, on the host; higher is better."""

TIMED_OUT = "timed_out"
"""The column that says which answers ran into a time limit, where any did."""

Progress = Callable[[int, int], None]
"""Called with (experts done, experts in all)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """The outcome of scoring N experts. A registered pytree of numpy arrays.

    Attributes:
      values: float32 [N], higher is better; −inf where failed.
      failed: bool [N]: the score was NaN or infinite. A failed expert ranks last.
      items: float32 [N, B], per-item outcomes as scored, or None.
      answers: object [N, B] of `str` or None, canonical answers, where a grade reads them.
      columns: name → float32 [N, B], what else a grade recorded.
      seen: int32 [N], the number of items that each value is the mean of, where experts were
        selected in rounds; None where every expert was scored on all. Items that an expert did
        not see are NaN in `items` and `columns`, None in `answers`.
    """

    values: np.ndarray
    failed: np.ndarray
    items: np.ndarray | None = None
    answers: np.ndarray | None = None
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seen: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of experts, N."""
        return len(self.values)

    def __repr__(self) -> str:
        """Returns how many, how good and what else is there, in three lines at most."""
        if not all(isinstance(x, np.ndarray) for x in (self.values, self.failed)):
            return "Scores(traced)"
        fine = self.values[~self.failed]
        held = {"items": self.items, "answers": self.answers, "seen": self.seen, **self.columns}
        shapes = (f"{name} {list(x.shape)}" for name, x in held.items() if x is not None)
        spread = (
            f"{fine.min():.6g} to {fine.max():.6g}, mean {fine.mean():.6g}" if fine.size else ""
        )
        return (
            f"Scores of {np.size(self.values)} experts, {int(self.failed.sum())} failed\n"
            f"  values: {spread or 'none'}\n"
            f"  with: {', '.join(shapes) or 'nothing else'}"
        )


def item_means(items: np.ndarray) -> np.ndarray:
    """Returns the mean over items [n, B], float32 [n]: the score of per-item outcomes.

    Summed in float64; what overflows is infinite, as on a device.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return items.mean(1, dtype=np.float64).astype(np.float32)


def of_values(values: np.ndarray, items: np.ndarray | None = None) -> Scores:
    """Returns scores [n] with those that are NaN or infinite marked as failed."""
    failed = ~np.isfinite(values)
    return Scores(np.where(failed, np.float32(-np.inf), values), failed, items)


def of_graded(found: Graded) -> Scores:
    """Returns the scores of graded outcomes: of each expert the mean, and all that was recorded."""
    scores = of_values(item_means(found.items), found.items)
    return dataclasses.replace(scores, answers=found.answers, columns=dict(found.columns))


def concatenate(parts: Sequence[Scores]) -> Scores:
    """Joins the scores of consecutive experts.

    Raises:
      ScoreError: a grade recorded other columns for some of them than for others.
    """
    if len(parts) == 1:
        return parts[0]
    return Scores(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.failed for part in parts]),
        joined([part.items for part in parts]),
        joined([part.answers for part in parts]),
        joined_columns([part.columns for part in parts]),
    )


def joined(parts: Sequence[np.ndarray | None], axis: int = 0) -> np.ndarray | None:
    """Joins arrays; None unless all are there."""
    held = [part for part in parts if part is not None]
    return np.concatenate(held, axis) if len(held) == len(parts) else None


def joined_columns(
    parts: Sequence[Mapping[str, np.ndarray]], axis: int = 0
) -> dict[str, np.ndarray]:
    """Joins columns name by name; different names are a `ScoreError`.

    `TIMED_OUT` alone may be absent from some, which is zeros.
    """
    if any(TIMED_OUT in columns for columns in parts):
        parts = [
            {TIMED_OUT: np.zeros_like(next(iter(columns.values()))), **columns}
            if columns
            else columns
            for columns in parts
        ]
    for columns in parts:
        if columns.keys() != parts[0].keys():
            raise ScoreError(
                f"grade recorded the columns {_listed(parts[0])} for some experts and "
                f"{_listed(columns)} for others; let it record the same for every expert"
            )
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}


def _listed(columns: Mapping[str, np.ndarray]) -> str:
    return ", ".join(columns) or "(none)"


def graded(grade: Grade, outputs: Any, count: int) -> Graded:
    """Returns what a grade makes of the outputs of `count` experts, checked.

    Raises:
      ScoreError: the grade raised something that is no `ThicketError`, or returned the wrong
        shapes or kinds.
    """
    try:
        found = grade(outputs)
    except ThicketError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ScoreError(f"grade raised {type(error).__name__}: {said}") from error
    if not isinstance(found, Graded):
        found = Graded(found)
    items = np.asarray(found.items)
    wrong = items.ndim != 2 or items.shape[0] != count or not items.size
    if wrong or not jnp.issubdtype(items.dtype, jnp.floating):
        raise ScoreError(
            f"grade returned {items.dtype}{list(items.shape)} for {count} experts; return float32 "
            f"[{count}, B], one row per expert"
        )
    columns = {name: np.asarray(column) for name, column in found.columns.items()}
    shapes = {f"columns[{name!r}]": column.shape for name, column in columns.items()}
    for name, texts in (("answers", found.answers), ("texts", found.texts)):
        if texts is None:
            continue
        shapes[name] = np.shape(texts)
        wrong = {type(x).__name__ for x in np.asarray(texts, object).flat if not _is_text(x)}
        if wrong:
            raise ScoreError(
                f"grade returned {name} with {', '.join(sorted(wrong))}; each must be a str or None"
            )
    for name, shape in shapes.items():
        if shape != items.shape:
            raise ScoreError(
                f"grade returned {name} {list(shape)} beside items {list(items.shape)}; return one "
                "entry per expert and item"
            )
    return Graded(
        items.astype(np.float32),
        None if found.answers is None else np.asarray(found.answers, object),
        {name: column.astype(np.float32) for name, column in columns.items()},
        None if found.texts is None else np.asarray(found.texts, object),
    )


def of_outputs(outputs: Any, found: Graded) -> Graded:
    """Returns what was graded, with NaN outcomes for experts whose outputs have a NaN in them.

    Such an expert has failed, whatever a grade made of it: the argmax of NaN is a class too.
    """
    broken = np.zeros(len(found.items), bool)
    for leaf in jax.tree.leaves(outputs):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            broken |= np.isnan(leaf).any(tuple(range(1, leaf.ndim)))
    if not broken.any():
        return found
    items = np.where(broken[:, None], np.float32("nan"), found.items)
    return dataclasses.replace(found, items=items)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)
