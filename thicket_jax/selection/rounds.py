"""Selection in rounds: every expert on a few items, the better ones on more, a few on all.

One loop, two rules of who goes on: `Halving` keeps as many as a budget pays for, `Race` drops who
cannot be among the best K any more. All experts see the same items in the same random order, so
that they are compared on equal items; no outcome is computed twice; one compiled program serves
all rounds. Shapes: N experts, S of them still in, B items, m seen, K kept.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from thicket_jax.errors import ArgumentError, check_count
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.mapping import devices as dv
from thicket_jax.scoring.pieces import PieceScorer
from thicket_jax.scoring.resuming import RoundLog, missing
from thicket_jax.scoring.scores import Grade, Progress, ScoreFn, Scores
from thicket_jax.selection.ranking import top_k
from thicket_jax.selection.schedules import Round


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What a race can promise.

    Attributes:
      delta: probability that the kept experts are not the best K.
      bounds: (low, high) that all outcomes were taken to have; None: of every pair of experts, the
        differences seen so far, and zero, were taken to span those not yet seen.
      comparisons: bounds that hold at once, each with probability 1 − delta / comparisons.
      stopped: experts that were stopped before they had seen all items; failed ones do not count.
      sentence: the same in words.
    """

    delta: float
    bounds: tuple[float, float] | None
    comparisons: int
    stopped: int
    sentence: str


@dataclasses.dataclass(frozen=True)
class Raced:
    """What a selection in rounds found.

    Attributes:
      experts: the best K, best first.
      scores: of all N; `values` are means over the items that each expert saw, `seen` int32 [N]
        how many those are, `items` float32 [N, B] in the batch's order, NaN where not computed.
      rounds: who saw which items, in terms of `order`.
      order: int [B], the items in the order in which all experts saw them.
      evaluations: outcomes that were computed.
      share: of the N·B outcomes of full scoring.
      guarantee: of a race; None for halving, which has none.
    """

    experts: Population
    scores: Scores
    rounds: tuple[Round, ...]
    order: np.ndarray
    evaluations: int
    share: float
    guarantee: Guarantee | None = None

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
class Standing:
    """How far a selection is.

    Attributes:
      number: of the round, from 1.
      start, stop: the round's items.
      done: bool [S], which of the round's experts have been scored.
      evaluations: outcomes so far.
      most: outcomes at most.
      best: the best mean over the round's items so far.
      tokens: generated in this process.
    """

    number: int
    start: int
    stop: int
    done: np.ndarray
    evaluations: int
    most: int
    best: float
    tokens: float


def run(
    scorer: PieceScorer,
    population: Population,
    rule: Rule,
    k: int,
    *,
    open_log: Callable[[int, np.ndarray, int], RoundLog | None] = lambda *_: None,
    tell: Callable[[Standing], None] = lambda _: None,
) -> tuple[Raced, float]:
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
    work = _Work(scorer, population, _Table(N, B), rule.most(N, B, k), tell)
    table, alive, start = work.table, np.arange(N), 0
    while start < B and len(alive):
        stop = rule.stop(N, B, k, start, len(alive))
        work.round(alive, start, stop, open_log(len(work.rounds), alive, stop - start))
        outcomes = table.items[np.ix_(alive, scorer.order[:stop])]
        values = _means(outcomes)
        fine = np.isfinite(values)
        table.seen[alive], table.values[alive], table.failed[alive] = stop, values, ~fine
        alive, start = alive[fine], stop
        if stop < B and len(alive):
            going = rule.keep(outcomes[fine], _part(population, alive), N, B, k)
            alive = dv.from_first(alive[going])
    scores = table.scores()
    found = Raced(
        experts=top_k(population, scores, k),
        scores=scores,
        rounds=tuple(work.rounds),
        order=scorer.order,
        evaluations=work.evaluations,
        share=work.evaluations / (N * B),
        guarantee=rule.guarantee(N, B, k, table.seen[~table.failed]),
    )
    return found, work.seconds


class _Work:
    """The rounds that were done, and what they took."""

    def __init__(
        self,
        scorer: PieceScorer,
        population: Population,
        table: "_Table",
        most: int,
        tell: Callable[[Standing], None],
    ) -> None:
        self.scorer, self.population, self.table = scorer, population, table
        self.most, self.tell = most, tell
        self.rounds: list[Round] = []
        self.evaluations, self.seconds, self.tokens = 0, 0.0, 0.0

    def round(self, alive: np.ndarray, start: int, stop: int, log: RoundLog | None) -> None:
        """Scores the experts at the positions `alive` on the items from `start` to `stop`."""
        wanted, done, best = self.scorer.order[start:stop], np.zeros(len(alive), bool), -np.inf
        number, before = len(self.rounds) + 1, self.evaluations

        def take(first: int, scores: Scores, seconds: float) -> None:
            nonlocal best
            here = slice(first, first + len(scores))
            self.table.put(alive[here], wanted, scores)
            done[here] = True
            best = max(best, float(scores.values.max()))
            self.seconds += seconds
            self.evaluations = before + int(done.sum()) * len(wanted)

        def say() -> None:
            count = self.evaluations
            self.tell(Standing(number, start, stop, done, count, self.most, best, self.tokens))

        for first, scores, seconds in dv.from_first([] if log is None else list(log.segments())):
            take(first, scores, seconds)
        say()
        try:
            for begin, end in missing(done):
                clock = time.monotonic()
                experts = _part(self.population, alive[begin:end])
                for first, scores in self.scorer.stream(experts, start, stop):
                    seconds, clock = time.monotonic() - clock, time.monotonic()
                    take(begin + first, scores, seconds)
                    self.tokens += float(np.nansum(scores.columns.get("tokens", 0)))
                    if log is not None:
                        log.append(begin + first, scores, seconds)
                    say()
        finally:
            if log is not None:
                log.flush()
        self.rounds.append(Round(len(alive), start, stop))


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


def _means(outcomes: np.ndarray) -> np.ndarray:
    """The mean over items, float32 [S]; what overflows is infinite, as on a device."""
    with np.errstate(over="ignore", invalid="ignore"):
        return outcomes.mean(1, dtype=np.float64).astype(np.float32)


def _part(population: Population, index: np.ndarray) -> Population:
    """Some of a population, its columns on the host: no program is compiled for a new count."""
    columns = {name: np.asarray(getattr(population, name))[index] for name in _COLUMNS}
    return dataclasses.replace(population, **columns)


_COLUMNS = ("ids", "sigmas", "signs")


def _alone(
    rule: Rule,
    score_fn: ScoreFn,
    params: Any,
    population: Population,
    batch: Any,
    k: int,
    grade: Grade | None,
    block_size: int | str,
    devices: Sequence[jax.Device] | None,
    backend: str,
    progress: Progress | None,
) -> Raced:
    check_experts("population", population)
    N, k = len(population), check_count("k", k)
    if k > N:
        raise ArgumentError(f"k={k} is larger than the population of {N}; lower k or raise num")
    scorer = PieceScorer(
        score_fn,
        params,
        population,
        batch,
        piece=lambda B: rule.piece(N, B, k),
        mapper=dv.mapper(devices, backend, params),
        grade=grade,
        block_size=block_size,
    )

    def tell(now: Standing) -> None:
        if progress is not None:
            progress(now.evaluations, now.most)

    return run(scorer, population, rule, k, tell=tell)[0]
