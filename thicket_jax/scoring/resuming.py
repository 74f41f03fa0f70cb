"""Score what is missing, log it, tell: one loop for searches, rounds and landscapes."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from thicket_jax.scoring.scores import Scores


class RoundLog(Protocol):
    """Keeps what a round computes as it goes; see `runlog.RunLog`."""

    def segments(self) -> Iterator[tuple[int, Scores, float]]:
        """Yields (start, scores, seconds) of what is kept of this round."""
        ...

    def append(self, start: int, scores: Scores, seconds: float) -> None:
        """Takes the scores of consecutive survivors."""
        ...

    def flush(self) -> None:
        """Writes what is held."""
        ...


def missing(done: np.ndarray) -> list[tuple[int, int]]:
    """Returns the [begin, end) runs of what is not done.

    >>> missing(np.array([True, False, False, True, False]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[True], done, [True]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
