"""Selection in rounds: every expert on a few items, the better ones on more, a few on all.

One loop, two rules of who goes on: `Halving` keeps as many as a budget pays for, `Race` drops who
cannot be among the best K any more. All experts see the same items in the same random order, so
that they are compared on equal items; no outcome is computed twice; one compiled program serves
all rounds. Shapes: N experts, S of them still in, B items, m seen, K kept.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from thicket_jax import devices as dv
from thicket_jax.bounds import beaten, comparisons
from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.experts import Population, check_count, check_experts
from thicket_jax.pieces import PieceScorer
from thicket_jax.schedules import (
    ROUNDS,
    Round,
    Schedule,
    check_share,
    halving_schedule,
    race_piece,
)
from thicket_jax.scoring import Grade, Progress, ScoreFn, Scores
from thicket_jax.selection import ranking, top_k

BUDGET, DELTA = 0.1, 0.05


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


@dataclasses.dataclass(frozen=True)
class Halving:
    """The rule of `tj.halving`: a budget, and rounds at most."""

    name: ClassVar[str] = "halving"
    budget: float = BUDGET
    rounds: int = ROUNDS

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
        values = _means(outcomes)
        best = ranking(Scores(values, np.zeros(len(values), bool)), experts)[:count]
        return np.isin(np.arange(len(values)), best)

    def guarantee(self, num: int, items: int, k: int, seen: np.ndarray) -> None:
        """Halving has none."""

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values."""
        return {"rule": self.name, "budget": self.budget, "rounds_at_most": self.rounds}


@dataclasses.dataclass(frozen=True)
class Race:
    """The rule of `tj.race`: a probability of error, and bounds of the outcomes if known."""

    name: ClassVar[str] = "race"
    delta: float = DELTA
    bounds: tuple[float, float] | None = None

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
                    f"an outcome of {outside[0]:g} lies outside the bounds {low:g} to {high:g}, on "
                    "which a race's guarantee rests; give bounds=(low, high) that hold"
                )
            width = 2 * (high - low)
        delta = self.delta / self._comparisons(num, items, k)
        return ~beaten(outcomes, k, items, delta, width)

    def _comparisons(self, num: int, items: int, k: int) -> int:
        return comparisons(num, k, -(-items // self.piece(num, items, k)) - 1)

    def guarantee(self, num: int, items: int, k: int, seen: np.ndarray) -> Guarantee:
        """Returns what can be promised, given how many items each expert saw that did not fail."""
        stopped = int((seen < items).sum())
        best = f"the {k} kept experts are the best {k} of all {num:,} on all {items:,} items"
        if not stopped:
            sentence = (
                "Nothing could be stopped: before all items were seen, no expert was certain not "
                f"to be among the best {k}. Whoever did not fail was scored on everything, and "
                f"{best}, without any probability."
            )
        else:
            sentence = (
                f"With probability at least {1 - self.delta:g} over the random order of the items, "
                f"{best}; {stopped:,} experts were stopped early. "
            )
            if self.bounds is None:
                sentence += (
                    "This holds on a condition, as outcomes have no known bounds: that the "
                    "difference of two experts on items not yet seen stayed within the range of "
                    "zero and their differences seen before."
                )
            else:
                low, high = self.bounds
                sentence += f"Outcomes lie between {low:g} and {high:g}."
        return Guarantee(
            self.delta, self.bounds, self._comparisons(num, items, k), stopped, sentence
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as JSON values."""
        return {
            "rule": self.name,
            "delta": self.delta,
            "bounds": None if self.bounds is None else list(self.bounds),
        }


Rule = Halving | Race
_halving_schedule = functools.lru_cache(maxsize=64)(halving_schedule)


def check_rule(
    select: str,
    budget: float | None = None,
    delta: float | None = None,
    bounds: Sequence[float] | None = None,
) -> Rule | None:
    """Returns the rule called `select`, or None for `all`.

    Raises:
      ArgumentError: an unknown name, an option of another rule, or a value that cannot work.
    """
    if select not in ("all", "halving", "race"):
        raise ArgumentError(f"select={select!r} is unknown; choose one of: all, halving, race")
    for name, value, owner in (
        ("budget", budget, "halving"),
        ("delta", delta, "race"),
        ("bounds", bounds, "race"),
    ):
        if value is not None and select != owner:
            raise ArgumentError(f"{name} is an option of select={owner!r}, not of {select!r}")
    if select == "halving":
        return Halving(BUDGET if budget is None else check_share("budget", budget))
    if select == "race":
        delta = DELTA if delta is None else check_share("delta", delta)
        if delta >= 1:
            raise ArgumentError("delta=1 promises nothing; give the probability of error, as 0.05")
        return Race(delta, None if bounds is None else _check_bounds(bounds))
    return None


def _check_bounds(bounds: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(x) for x in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ArgumentError(f"bounds={bounds!r} must be two finite numbers, (low, high)")
    return low, high


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


def missing(done: np.ndarray) -> list[tuple[int, int]]:
    """Returns the [begin, end) runs of what is not done.

    >>> missing(np.array([True, False, False, True, False]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[True], done, [True]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


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
) -> Raced:
    """Finds the best K for a share of the work: all experts on a few items, few on all.

    Sequential halving under a budget of N·B item outcomes; see `halving_schedule` for the rounds.
    After each round the best go on by their mean over the items seen so far, ties to the lower id;
    a failed expert never does. There is no guarantee that the K are the best: `race` has one.

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
      A `Raced`.

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
    rule = Halving(check_share("budget", budget), check_count("rounds", rounds))
    return _alone(rule, score_fn, params, population, batch, k, grade, block_size, devices,
                  backend, progress)  # fmt: skip


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
) -> Raced:
    """Finds the best K with probability 1 − δ: who cannot be among them is stopped early.

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
      bounds: (low, high) of an outcome, such as (0, 1); an outcome outside is an error. None: of
        every pair, the range of zero and its differences so far is taken for w, and the guarantee
        rests on that condition.

    Returns:
      A `Raced`; its `guarantee` says what is promised, also that nothing could be stopped. It
      does not cover an expert that fails on an item after others were stopped on its account.

    Raises:
      ArgumentError: bad options.
      ScoreError: outcomes are not per item or outside the bounds, or every expert failed.

    Source: Bardenet and Maillard, "Concentration inequalities for sampling without replacement",
    Bernoulli 21 (2015), Theorem 4.3 and Corollary 2.5, for the bounds; Maron and Moore, "Hoeffding
    races", NIPS 1993, and Mnih, Szepesvári and Audibert, "Empirical Bernstein stopping", ICML
    2008, for racing by them.
    """
    rule = check_rule("race", None, delta, bounds)
    assert rule is not None
    return _alone(rule, score_fn, params, population, batch, k, grade, block_size, devices,
                  backend, progress)  # fmt: skip


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


def from_json(value: Mapping[str, Any]) -> Rule:
    """Returns the rule that `to_json` wrote."""
    if value["rule"] == Halving.name:
        return Halving(value["budget"], value["rounds_at_most"])
    bounds = value["bounds"]
    return Race(value["delta"], None if bounds is None else (bounds[0], bounds[1]))
