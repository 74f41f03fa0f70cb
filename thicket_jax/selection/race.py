"""`tj.race`: experts that cannot be among the best K are stopped early.

With bounds of an outcome that is certain up to a probability; without, it is a heuristic.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.experts.arguments import check_arrays, check_callable
from thicket_jax.experts.population import Population
from thicket_jax.mapping.placement import place
from thicket_jax.scoring.layouts import check_items
from thicket_jax.scoring.scores import Grade, Progress, ScoreFn
from thicket_jax.selection.bounds import beaten, comparisons
from thicket_jax.selection.rounds import Guarantee, SelectionResult, select
from thicket_jax.selection.schedules import check_share, race_piece

DELTA = 0.05


def _check_bounds(bounds: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(x) for x in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ArgumentError(f"bounds={bounds!r} must be two finite numbers, (low, high)")
    return low, high


@dataclasses.dataclass(frozen=True)
class Race:
    """The rule of `tj.race`: a probability of error, and bounds of the outcomes if known.

    Without bounds `delta` sets how early experts are stopped, and is no probability of error.
    """

    name: ClassVar[str] = "race"
    delta: float = DELTA
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuses what is no probability of error, and bounds that are none."""
        if check_share("delta", self.delta) == 1:
            raise ArgumentError("delta=1 promises nothing; give the probability of error, as 0.05")
        if self.bounds is not None:
            _check_bounds(self.bounds)

    @classmethod
    def checked(cls, delta: float, bounds: Sequence[float] | None) -> "Race":
        """Returns the rule with `bounds` of any sequence of two numbers; None for none."""
        return cls(delta, None if bounds is None else _check_bounds(bounds))

    def piece(self, num: int, items: int, k: int) -> int:
        """Returns the items in a piece."""
        del num, k
        return race_piece(items)

    def most(self, num: int, items: int, k: int) -> int:
        """Returns the outcomes that can be computed at most: all."""
        del k
        return num * items

    def stop(self, num: int, items: int, k: int, start: int, alive: int) -> int:
        """Returns behind which item the round ends that begins at item `start`."""
        # Where nobody can be dropped any more, the rest is one round.
        return items if alive <= k else min(items, start + self.piece(num, items, k))

    def keep(
        self, outcomes: np.ndarray, experts: Population, num: int, items: int, k: int
    ) -> np.ndarray:
        """Returns who goes on, as bool [S], after `outcomes` [S, m] without failures."""
        del experts
        width = None
        if self.bounds is not None:
            low, high = self.bounds
            outside = outcomes[(outcomes < low) | (outcomes > high)]
            if outside.size:
                raise ScoreError(
                    f"an outcome of {outside[0]:.9g} lies outside the bounds {low:.9g} to "
                    f"{high:.9g}, on which a race's guarantee rests; give bounds=(low, high) that "
                    "hold"
                )
            width = 2 * (high - low)
        delta = self.delta / self._comparisons(num, items, k)
        return ~beaten(outcomes, k, items, delta, width)

    def _comparisons(self, num: int, items: int, k: int) -> int:
        return comparisons(num, k, -(-items // self.piece(num, items, k)) - 1)

    def guarantee(self, num: int, items: int, k: int, seen: np.ndarray) -> Guarantee:
        """Returns what can be promised, given how many items each expert saw that did not fail.

        Without bounds that is nothing, unless nobody was stopped.
        """
        return self._guarantee(num, items, k, int((seen < items).sum()))

    def _guarantee(self, num: int, items: int, k: int, stopped: int) -> Guarantee:
        best = f"the {k} kept experts are the best {k} of all {num:,} on all {items:,} items"
        if not stopped:
            sentence = (
                "Nothing could be stopped: before all items were seen, no expert was certain not "
                f"to be among the best {k}. Whoever did not fail was scored on everything, and "
                f"{best}, without any probability."
            )
        elif self.bounds is None:
            sentence = (
                f"A heuristic, without any guarantee that {best}: {stopped:,} experts were stopped "
                "early, though outcomes have no known bounds. A few items that nobody saw yet may "
                "be worth more than all that were seen; only bounds of an outcome make a race "
                "certain."
            )
        else:
            low, high = self.bounds
            sentence = (
                f"With probability at least {1 - self.delta:g} over the random order of the items, "
                f"{best}; {stopped:,} experts were stopped early. "
                f"Outcomes lie between {low:g} and {high:g}."
            )
        certain = self.bounds is not None or not stopped
        return Guarantee(
            self.delta if certain else None,
            self.bounds,
            self._comparisons(num, items, k),
            stopped,
            sentence,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values."""
        return {
            "rule": self.name,
            "delta": self.delta,
            "bounds": None if self.bounds is None else list(self.bounds),
        }


def restated(stored: Mapping[str, Any], num: int, items: int, k: int) -> dict[str, Any]:
    """Returns a race's guarantee, JSON values, in the words of this release.

    Release 0.2.0 gave a race without bounds a probability, on a condition; it is a heuristic.

    Args:
      stored: as `SelectionResult.to_json` has it.
      num: of the experts.
      items: that an expert can see.
      k: experts kept.
    """
    delta = DELTA if stored["delta"] is None else stored["delta"]
    said = Race.checked(delta, stored["bounds"])._guarantee(num, items, k, stored["stopped"])
    return {**stored, "delta": said.delta, "sentence": said.sentence}


def race(
    score_fn: ScoreFn,
    params: Any,
    population: Population,
    batch: Any,
    k: int,
    *,
    delta: float = DELTA,
    bounds: Sequence[float] | None = None,
    grade: Grade | None = None,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    progress: Progress | None = None,
) -> SelectionResult:
    """Finds the best K, given bounds with probability 1 − δ; who is out is stopped early.

    Without `bounds` it is a heuristic: it promises nothing, and with rare large outcomes it often
    keeps others than the best.

    After every twelfth of the items or so, an expert is stopped if each of the K that lead is
    better for certain: the mean of their m paired differences exceeds

        min(s·√(2ρL/m) + (7/3 + 3/√2)·w·L/m,  w·√(ρL'/(2m)))

    with s their standard deviation, w the width of the interval in which they lie, ρ the factor of
    drawing without replacement, L = ln(10/δ') and L' = ln(2/δ'): the smaller of the empirical
    Bernstein–Serfling and the Hoeffding–Serfling bound. δ' = δ / (K·(N − K)·looks): one of the
    true best K is dropped wrongly only if an expert that is not among them is held to be better,
    and these pairs, at every look, are joined by a union bound. The rest is scored on all items.

    Args:
      score_fn, params, population, batch, k, grade, block_size, devices, backend, progress: as in
        `halving`.
      delta: probability, over the order of the items, that the K are not the best K on all items.
        Without bounds, only how early experts are stopped.
      bounds: (low, high) of an outcome, such as (0, 1); an outcome outside is an error. None makes
        the race a heuristic: of every pair, the range of zero and its differences so far is taken
        for w, and a rare outcome that nobody has seen yet is not thought of.

    Returns:
      A `SelectionResult`; its `guarantee` says what is promised, also that it is nothing, or that
      nothing could be stopped. It does not cover an expert that fails on an item after others were
      stopped on its account.

    Raises:
      ArgumentError: bad options.
      ScoreError: outcomes are not per item or outside the bounds, or every expert failed.

    Source: Bardenet and Maillard, "Concentration inequalities for sampling without replacement",
    Bernoulli 21 (2015), Theorem 4.3 and Corollary 2.5, for the bounds; Maron and Moore, "Hoeffding
    races", NIPS 1993, and Mnih, Szepesvári and Audibert, "Empirical Bernstein stopping", ICML
    2008, for racing by them.
    """
    rule = Race.checked(delta, bounds)
    check_callable("progress", progress)
    check_arrays("params", params)
    check_items(batch)
    check_callable("score_fn", score_fn, optional=False)
    check_callable("grade", grade)
    placement = place(params, devices=devices, backend=backend, block_size=block_size)
    return select(
        rule, score_fn, params, population, batch, k, placement, grade=grade, progress=progress
    )
