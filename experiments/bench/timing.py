"""Alternated runs, medians and spreads: a ratio is only of things measured side by side."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs every contender once per round, in turn (A B C A B C ...); returns their seconds.

    Every other round runs in reverse, so that no contender always follows the same one.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        names = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in names:
            samples[name].append(contenders[name]())
    return samples


def seconds(action: Callable[[], Any]) -> float:
    """Returns the seconds of an action, until the arrays that it returns are ready."""
    began = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - began


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Returns the samples with their median, smallest and largest."""
    return {
        "samples": list(samples),
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
    }


def share(own: Sequence[float], plain: Sequence[float], work: float = 1.0) -> dict[str, float]:
    """Returns the throughput as a share of another's, from samples of the same rounds.

    Args:
      own, plain: seconds of both, round by round.
      work: what a sample of `own` does, over what a sample of `plain` does.

    Returns:
      `median`, the ratio of the medians; `min` and `max`, of the ratios within a round.
    """
    each = [work * b / a for a, b in zip(own, plain, strict=True)]
    median = work * statistics.median(plain) / statistics.median(own)
    return {"median": median, "min": min(each), "max": max(each)}


def target(name: str, value: float | None, limit: float, at_least: bool) -> dict[str, Any]:
    """Returns a target, what was measured, and whether it is met (None where not measured)."""
    met = None if value is None else bool(value >= limit if at_least else value <= limit)
    return {
        "name": name,
        "limit": limit,
        "direction": "at least" if at_least else "at most",
        "measured": value,
        "met": met,
    }
