"""Score what is missing, log it, tell: one loop for searches, rounds and landscapes."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from thicket_jax.mapping.devices import from_first
from thicket_jax.scoring.scores import Scores


class ScoreLog(Protocol):
    """Keeps scores as they come; see `runs.log.RunLog`."""

    def segments(self) -> Iterator[tuple[int, Scores, float]]:
        """Yields (position of the first, scores, seconds) of what is kept."""
        ...

    def append(self, start: int, scores: Scores, seconds: float) -> None:
        """Takes the scores of consecutive experts."""
        ...

    def flush(self) -> None:
        """Writes what is held."""
        ...


@dataclasses.dataclass(frozen=True)
class Scored:
    """How far scoring is.

    Attributes:
      done: bool [N], which experts have been scored, those in the log included.
      best: the best score so far; −inf while there is none.
      tokens: generated for the experts that were scored now.
    """

    done: np.ndarray
    best: float
    tokens: float


Stream = Callable[[int, int], Iterator[tuple[int, Scores]]]
"""(begin, end) → (position of the first behind `begin`, scores) of consecutive experts."""


def score_missing(
    stream: Stream,
    count: int,
    log: ScoreLog | None,
    tell: Callable[[Scored], None],
) -> tuple[list[tuple[int, Scores]], float]:
    """Scores every expert that the log does not have, and logs it as it goes.

    Several processes call it together; only process 0 has a log.

    Args:
      stream: scores those from `begin` to `end`.
      count: of experts, N.
      log: takes what is scored, or None. It is flushed also where scoring is cut off.
      tell: called at first, and after each part.

    Returns:
      (position of the first, scores) of consecutive experts, in order, that are all N together; and
      the seconds that scoring took, those in the log included.
    """
    parts: list[tuple[int, Scores]] = []
    done, best, tokens, seconds = np.zeros(count, bool), -np.inf, 0.0, 0.0

    def take(start: int, scores: Scores, spent: float) -> None:
        nonlocal best, seconds
        parts.append((start, scores))
        done[start : start + len(scores)] = True
        best = max(best, float(scores.values.max()))
        seconds += spent

    for start, scores, spent in from_first([] if log is None else list(log.segments())):
        take(start, scores, spent)
    tell(Scored(done, best, tokens))
    try:
        for begin, end in missing(done):
            clock = time.monotonic()
            for first, scores in stream(begin, end):
                spent, clock = time.monotonic() - clock, time.monotonic()
                take(begin + first, scores, spent)
                tokens += float(np.nansum(scores.columns.get("tokens", 0)))
                if log is not None:
                    log.append(begin + first, scores, spent)
                tell(Scored(done, best, tokens))
    finally:
        if log is not None:
            log.flush()
    parts.sort(key=lambda part: part[0])
    return parts, seconds


def missing(done: np.ndarray) -> list[tuple[int, int]]:
    """Returns the [begin, end) runs of what is not done.

    >>> missing(np.array([True, False, False, True, False]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[True], done, [True]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
