"""Selection in rounds: every expert on a few items, the better ones on more, a few on all.

One loop, two rules of who goes on: `Halving` keeps as many as a budget pays for, `Race` drops who
cannot be among the best K any more. All experts see the same items in the same random order, so
that they are compared on equal items; no outcome is computed twice; one compiled program serves
all rounds. Shapes: N experts, S of them still in, B items, m seen, K kept.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import numpy as np

from thicket_jax.errors import ArgumentError, check_count
from thicket_jax.experts import rounding
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.mapping.devices import from_first
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.pieces import ItemScorer, PieceScorer
from thicket_jax.scoring.resuming import Scored, ScoreLog, score_missing
from thicket_jax.scoring.scores import Grade, Progress, ScoreFn, Scores, item_means
from thicket_jax.selection.ranking import top_k
from thicket_jax.selection.schedules import Round


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What a race can promise: with bounds a probability, without them nothing (a heuristic).

    Attributes:
      delta: probability that the kept experts are not the best K at most; None where a heuristic
        stopped experts, which has none.
      bounds: (low, high) that all outcomes have; None: of every pair of experts, the differences
        seen so far, and zero, were taken to span those not yet seen.
      comparisons: bounds that are to hold at once, each with probability 1 − δ / comparisons.
      stopped: experts that were stopped before they had seen all items; failed ones do not count.
      sentence: the same in words.
    """

    delta: float | None
    bounds: tuple[float, float] | None
    comparisons: int
    stopped: int
    sentence: str


@dataclasses.dataclass(frozen=True)
class SelectionResult:
    """What a selection in rounds found.

    Attributes:
      experts: the best K, best first.
      scores: of all N; `values` are means over the items that each expert saw, `seen` int32 [N]
        how many those are, `items` float32 [N, B] in the batch's order, NaN where not computed.
      rounds: who saw which items, in terms of `order`.
      order: int [B], the items in the order in which all experts saw them.
      evaluations: outcomes that were computed.
      share: of the N·B outcomes of full scoring.
      guarantee: what a race promises, which without bounds is nothing; None for halving.
    """

    experts: Population
    scores: Scores
    rounds: tuple[Round, ...]
    order: np.ndarray
    evaluations: int
    share: float
    guarantee: Guarantee | None = None

    def __repr__(self) -> str:
        """Returns what it took and what it promises, in three lines."""
        some = self.rounds if len(self.rounds) < 7 else (*self.rounds[:3], None, *self.rounds[-2:])
        steps = ", ".join("..." if r is None else f"{r.experts} to {r.stop}" for r in some)
        promise = "no guarantee" if self.guarantee is None else self.guarantee.sentence
        return (
            f"SelectionResult: {len(self.experts)} of {len(self.scores)} experts kept\n"
            f"  {100 * self.share:.1f} % of the outcomes (experts to item: {steps})\n"
            f"  {promise}"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns rounds, evaluations, share and guarantee as JSON values."""
        guarantee = None
        if self.guarantee is not None:
            guarantee = dataclasses.asdict(self.guarantee)
            if self.guarantee.bounds is not None:
                guarantee["bounds"] = list(self.guarantee.bounds)
        return {
            "rounds": [dataclasses.asdict(one) for one in self.rounds],
            "evaluations": self.evaluations,
            "share": self.share,
            "guarantee": guarantee,
        }


class Rule(Protocol):
    """Who goes on from round to round. Frozen, hashable and its own JSON; see `rules.from_json`.

    Shapes: N experts (`num`), B items (`items`), K kept (`k`), S still in, m items seen.
    """

    name: ClassVar[str]

    def piece(self, num: int, items: int, k: int) -> int:
        """Returns the items in a piece: rounds begin and end at pieces."""
        ...

    def most(self, num: int, items: int, k: int) -> int:
        """Returns the outcomes that can be computed at most."""
        ...

    def stop(self, num: int, items: int, k: int, start: int, alive: int) -> int:
        """Returns behind which item the round ends that begins at item `start` with S `alive`."""
        ...

    def keep(
        self, outcomes: np.ndarray, experts: Population, num: int, items: int, k: int
    ) -> np.ndarray:
        """Returns who goes on, bool [S], after `outcomes` [S, m] without failures."""
        ...

    def guarantee(self, num: int, items: int, k: int, seen: np.ndarray) -> "Guarantee | None":
        """Returns what can be promised, given how many items each expert saw; None: nothing."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values."""
        ...


@dataclasses.dataclass(frozen=True)
class RoundProgress:
    """How far a selection is.

    Attributes:
      number: of the round, from 1.
      start, stop: the round's items.
      scored: of the round's experts; None before it begins.
      evaluations: outcomes so far.
      most: outcomes at most.
    """

    number: int
    start: int
    stop: int
    scored: Scored | None
    evaluations: int
    most: int


def run(
    scorer: ItemScorer,
    population: Population,
    rule: Rule,
    k: int,
    *,
    open_log: Callable[[int, np.ndarray, int], ScoreLog | None] = lambda *_: None,
    tell: Callable[[RoundProgress], None] = lambda _: None,
) -> tuple[SelectionResult, float]:
    """Runs all rounds; returns what was found, and the seconds that scoring took.

    Several processes call it together; who goes on is what process 0 finds.

    Args:
      scorer: ready on the devices, of this rule's piece size.
      population: N experts.
      rule: who goes on.
      k: experts to keep.
      open_log: (number of the round, positions int [S], new items) → its log, or None. What is in
        the log is not scored again.
      tell: called as it goes.
    """
    N, B = len(population), scorer.count
    rounds: list[Round] = []
    table, most = _Table(N, B), rule.most(N, B, k)
    alive, start, evaluations, seconds = np.arange(N), 0, 0, 0.0
    while start < B and len(alive):
        number, stop = len(rounds), rule.stop(N, B, k, start, len(alive))
        log = open_log(number, alive, stop - start)
        so_far = RoundProgress(number + 1, start, stop, None, evaluations, most)
        parts, spent = _score_round(scorer, _part(population, alive), so_far, log, tell)
        for first, scores in parts:
            table.put(alive[first : first + len(scores)], scorer.order[start:stop], scores)
        rounds.append(Round(len(alive), start, stop))
        evaluations, seconds = evaluations + len(alive) * (stop - start), seconds + spent
        outcomes = table.items[np.ix_(alive, scorer.order[:stop])]
        values = item_means(outcomes)
        fine = np.isfinite(values)
        table.seen[alive], table.values[alive], table.failed[alive] = stop, values, ~fine
        alive, start = alive[fine], stop
        if stop < B and len(alive):
            going = rule.keep(outcomes[fine], _part(population, alive), N, B, k)
            alive = from_first(alive[going])
    scores = table.scores()
    found = SelectionResult(
        experts=top_k(population, scores, k),
        scores=scores,
        rounds=tuple(rounds),
        order=scorer.order,
        evaluations=evaluations,
        share=evaluations / (N * B),
        guarantee=rule.guarantee(N, B, k, table.seen[~table.failed]),
    )
    return found, seconds


def _score_round(
    scorer: ItemScorer,
    experts: Population,
    so_far: RoundProgress,
    log: ScoreLog | None,
    tell: Callable[[RoundProgress], None],
) -> tuple[list[tuple[int, Scores]], float]:
    """Scores a round's experts on its items; see `score_missing`."""
    items, most = (so_far.start, so_far.stop), scorer.expert_map.placement.most
    if most is not None:  # as much work as this many experts on all items
        most = max(1, most * scorer.count // (so_far.stop - so_far.start))

    def stream(begin: int, end: int) -> Iterator[tuple[int, Scores]]:
        part = _part(experts, np.arange(begin, end))
        return scorer.stream(part, items, most)

    def say(scored: Scored) -> None:
        evaluations = so_far.evaluations + int(scored.done.sum()) * (so_far.stop - so_far.start)
        tell(dataclasses.replace(so_far, scored=scored, evaluations=evaluations))

    return score_missing(stream, len(experts), log, say)


class _Table:
    """Outcomes of all experts on all items, as far as they are known."""

    def __init__(self, num: int, items: int) -> None:
        self.items = np.full((num, items), np.nan, np.float32)
        self.values = np.full(num, -np.inf, np.float32)
        self.failed = np.zeros(num, bool)
        self.seen = np.zeros(num, np.int32)
        self.answers: np.ndarray | None = None
        self.columns: dict[str, np.ndarray] = {}

    def put(self, positions: np.ndarray, items: np.ndarray, scores: Scores) -> None:
        """Enters the scores of some experts on some items."""
        here = np.ix_(positions, items)
        self.items[here] = scores.items
        if scores.answers is not None:
            if self.answers is None:
                self.answers = np.full(self.items.shape, None, object)
            self.answers[here] = scores.answers
        for name, column in scores.columns.items():
            if name not in self.columns:
                self.columns[name] = np.full(self.items.shape, np.nan, np.float32)
            self.columns[name][here] = column

    def scores(self) -> Scores:
        """All of it as `Scores`."""
        values = np.where(self.failed, np.float32(-np.inf), self.values)
        return Scores(values, self.failed, self.items, self.answers, self.columns, self.seen)


def _part(population: Population, index: np.ndarray) -> Population:
    """Some of a population, its columns on the host: no program is compiled for a new count."""
    columns = {name: np.asarray(getattr(population, name))[index] for name in _COLUMNS}
    return dataclasses.replace(population, **columns)


_COLUMNS = ("ids", "sigmas", "signs")


def select(
    rule: Rule,
    score_fn: ScoreFn,
    params: Any,
    population: Population,
    batch: Any,
    k: int,
    placement: Placement,
    *,
    grade: Grade | None = None,
    progress: Progress | None = None,
) -> SelectionResult:
    """Runs a rule on a user's own function; see `tj.halving`."""
    check_experts("population", population)
    N, k = len(population), check_count("k", k)
    if k > N:
        raise ArgumentError(f"k={k} is larger than the population of {N}; lower k or raise num")
    scorer = PieceScorer(
        score_fn,
        params,
        population,
        batch,
        placement,
        piece=lambda B: rule.piece(N, B, k),
        grade=grade,
    )

    ready = scorer.expert_map
    rounding.check(params, ready.plan, population, ready.scales)

    def tell(now: RoundProgress) -> None:
        if progress is not None:
            progress(now.evaluations, now.most)

    return run(scorer, population, rule, k, tell=tell)[0]
