"""`tj.halving`: all experts on a few items, the better half on more, within a budget."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from thicket_jax.errors import check_count
from thicket_jax.experts.arguments import check_arrays, check_callable
from thicket_jax.experts.population import Population
from thicket_jax.mapping.placement import place
from thicket_jax.scoring.layouts import check_items
from thicket_jax.scoring.scores import Grade, Progress, ScoreFn, Scores, item_means
from thicket_jax.selection.ranking import ranking
from thicket_jax.selection.rounds import SelectionResult, select
from thicket_jax.selection.schedules import ROUNDS, Schedule, check_share, halving_schedule

BUDGET = 0.1


@dataclasses.dataclass(frozen=True)
class Halving:
    """The rule of `tj.halving`: a budget, and rounds at most."""

    name: ClassVar[str] = "halving"
    budget: float = BUDGET
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        """Refuses a budget that is no share, and rounds that are no count."""
        object.__setattr__(self, "budget", check_share("budget", self.budget))
        object.__setattr__(self, "rounds", check_count("rounds", self.rounds))

    def schedule(self, num: int, items: int, k: int) -> Schedule:
        """Returns the rounds; see `halving_schedule`."""
        return _halving_schedule(num, items, k, self.budget, self.rounds)

    def piece(self, num: int, items: int, k: int) -> int:
        """Returns the items in a piece."""
        return self.schedule(num, items, k).piece

    def most(self, num: int, items: int, k: int) -> int:
        """Returns the outcomes that can be computed at most."""
        return self.schedule(num, items, k).evaluations

    def stop(self, num: int, items: int, k: int, start: int, alive: int) -> int:
        """Returns behind which item the round ends that begins at item `start`."""
        del alive
        return next(r.stop for r in self.schedule(num, items, k).rounds if r.start == start)

    def keep(
        self, outcomes: np.ndarray, experts: Population, num: int, items: int, k: int
    ) -> np.ndarray:
        """Returns who goes on, as bool [S], after `outcomes` [S, m] without failures."""
        seen = outcomes.shape[1]
        rounds = self.schedule(num, items, k).rounds
        count = next(r.experts for r in rounds if r.start == seen)
        values = item_means(outcomes)
        best = ranking(Scores(values, np.zeros(len(values), bool)), experts)[:count]
        return np.isin(np.arange(len(values)), best)

    def guarantee(self, num: int, items: int, k: int, seen: np.ndarray) -> None:
        """Halving has none."""

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values."""
        return {"rule": self.name, "budget": self.budget, "rounds_at_most": self.rounds}


_halving_schedule = functools.lru_cache(maxsize=64)(halving_schedule)


def halving(
    score_fn: ScoreFn,
    params: Any,
    population: Population,
    batch: Any,
    k: int,
    *,
    budget: float = BUDGET,
    rounds: int = ROUNDS,
    grade: Grade | None = None,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    progress: Progress | None = None,
) -> SelectionResult:
    """Finds the best K for a share of the work: all experts on a few items, few on all.

    Sequential halving under a budget of N·B item outcomes; see `halving_schedule` for the rounds.
    After each round the best go on by their mean over the items seen so far, ties to the lower id;
    a failed expert never does. There is no guarantee that the K are the best: a `race`
    with bounds has one.

    One compiled program serves all rounds. Memory as `tj.score`; on the host N × B.

    Args:
      score_fn: as in `tj.score`, of one outcome per item, [B], each of which depends on its own
        item alone. With `grade`, of one output per item.
      params: θ; never modified.
      population: N experts. Its key is not consumed; the order of the items is folded from it.
      batch: pytree; leaves with a leading axis of B are cut into items, others passed whole.
      k: experts to keep, K.
      budget: share of the N·B outcomes that may be computed, above 0 and at most 1. Never
        exceeded; where pieces do not divide B, items that fill up the last piece do not count.
      rounds: rounds at most.
      grade: as in `tj.score`, for outputs of all B items, in which those that were not computed
        are zeros; what it says of these is not looked at.
      block_size, devices, backend: as in `tj.score`.
      progress: called with (outcomes computed, outcomes at most).

    Returns:
      A `SelectionResult`.

    Raises:
      ArgumentError: bad options, or a budget that does not pay for K experts on all items.
      ScoreError: outcomes are not per item, or every expert failed.

    Example:
      >>> import jax.numpy as jnp, thicket_jax as tj
      >>> experts = tj.population(jax.random.key(0), 64, 0.1)
      >>> fn = lambda params, batch: -((params["w"] - batch) ** 2)
      >>> found = halving(fn, {"w": jnp.zeros(())}, experts, jnp.ones(32), 2, budget=0.25)
      >>> len(found.experts), found.share <= 0.25
      (2, True)

    Source: Karnin, Koren and Somekh, "Almost optimal exploration in multi-armed bandits", ICML
    2013 (sequential halving).
    """
    rule = Halving(budget, rounds)
    check_callable("progress", progress)
    check_arrays("params", params)
    check_items(batch)
    check_callable("score_fn", score_fn, optional=False)
    check_callable("grade", grade)
    placement = place(params, devices=devices, backend=backend, block_size=block_size)
    return select(
        rule, score_fn, params, population, batch, k, placement, grade=grade, progress=progress
    )
