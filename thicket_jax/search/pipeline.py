"""The pipeline: sample → score → select → ensemble → report, logged and resumable.

The only file that imports every stage. `randopt` is its form for a user's own function; the
command line runs tasks through the same `execute`.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles.combine import Combine, with_weights
from thicket_jax.ensembles.prediction import Predictor
from thicket_jax.errors import ArgumentError, RunError, ScoreError, ThicketError, check_count
from thicket_jax.experts.leaves import plan
from thicket_jax.experts.noise import LOW_RANK, MODULAR
from thicket_jax.experts.population import Population, check_key, unperturbed
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.usage import matrix_axes
from thicket_jax.reports import report, results
from thicket_jax.runs import files
from thicket_jax.runs import log as run_log
from thicket_jax.scoring import resuming
from thicket_jax.scoring.pieces import PieceScorer
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.scoring.scores import Scores, concatenate
from thicket_jax.search import answers as test_answers
from thicket_jax.search import manifest
from thicket_jax.search.problem import Problem, Settings, Watch
from thicket_jax.selection import race
from thicket_jax.selection import rounds as racing
from thicket_jax.selection.ranking import ranking, top_k


@dataclasses.dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
      population: all N experts.
      scores: of all N, on the training items.
      experts: the best max(k), best first.
      predict: `predict(batch) -> [B, ...]`, the ensemble of the experts under the first combine
        rule; None without a `predict_fn`.
      table: the content of results.json: base, best, ensembles, density, timing.
      run_dir: where it was written, or None.
    """

    population: Population
    scores: Scores
    experts: Population
    predict: Callable[[Any], Any] | None
    table: dict[str, Any]
    run_dir: pathlib.Path | None


def execute(
    problem: Problem, experts: Population, settings: Settings, about: Mapping[str, Any]
) -> Result:
    """Runs the pipeline; every process calls it, process 0 alone writes.

    Args:
      problem: what is searched.
      experts: the population.
      settings: how, and where to.
      about: entries of config.json that name the run: task, model, options, notes, command.
    """
    check_key(experts.key)
    check_ks(settings.k, len(experts))
    experts = with_axes(problem, experts)
    test_answers.check(problem)
    run_dir = settings.run_dir
    first = jax.process_index() == 0
    block_size = settings.block_size
    if run_dir is not None:
        block_size = dv.from_first(
            _on_first(lambda: manifest.before(run_dir, settings), block_size)
        )
    mapper = dv.mapper(settings.devices, settings.backend, problem.params)
    if jax.process_count() > 1:
        inputs = files.fingerprint((problem.params, problem.train, manifest.test_of(problem)))
        if not dv.same_everywhere(inputs):
            raise RunError(
                "the processes have different base parameters or data; give all of them the same "
                "(for the command line: one --cache on a shared file system)"
            )
    scorer = _scorer(problem, experts, settings, mapper, block_size)
    scorer.map.prepare()
    config = manifest.config_of(problem, experts, settings, about, scorer) if first else {}
    log = None
    if run_dir is not None:
        log = _on_first(lambda: manifest.open_log(run_dir, settings, config, len(experts)), None)
    raced = None
    with _what_is_kept(log):
        if isinstance(scorer, PieceScorer):
            base, raced, score_seconds = _race(scorer, experts, log, problem, settings)
            scores = raced.scores
        else:
            base, scores, score_seconds = _score(scorer, experts, log, _teller(problem, settings))
    kept = top_k(experts, scores, max(settings.k))

    began = time.monotonic()
    predictor = None
    with _what_is_kept(log):
        outputs = scorer if isinstance(scorer, PieceScorer) else scorer.map
        answers = test_answers.answer(problem, experts, scores, kept, outputs)
    if problem.predict_fn is not None:
        predictor = Predictor(
            problem.predict_fn,
            problem.params,
            kept,
            mapper=mapper,
            with_id=problem.with_id,
            stream=settings.stream,
        )
    timing = {
        "setup_s": settings.setup_seconds,
        "compile_s": scorer.map.compile_seconds,
        "score_s": score_seconds,
        "ensemble_s": time.monotonic() - began,
        "experts_per_s": len(experts) / max(score_seconds, 1e-9),
    }
    table: dict[str, Any] = {}
    if first:
        record = manifest.record_of(problem, experts, scores, base, answers, config, timing, raced)
        table = results.build_results(record, metric=problem.metric, rules=problem.combines)
        if run_dir is not None:
            manifest.write(record, run_dir)
            report.write(record, run_dir, table, draw=settings.draw, metric=problem.metric)
    predict = None
    if predictor is not None:
        weights = scores.values[ranking(scores, experts)[: len(kept)]]
        rule = with_weights(next(iter(problem.combines.values())), weights)
        predict = _Predict(predictor, rule)
    return Result(experts, scores, kept, predict, table, run_dir)


def with_axes(problem: Problem, experts: Population) -> Population:
    """Returns the population with its law's axes found, where it needs some and names none."""
    law = experts.noise
    if law.axes or (law.family != LOW_RANK and law.scale != MODULAR):
        return experts
    plan(problem.params, law)
    rest = (problem.train, np.int32(0)) if problem.with_id else (problem.train,)
    axes = matrix_axes(problem.score_fn, problem.params, *rest, oriented=law.scale == MODULAR)
    return dataclasses.replace(experts, noise=dataclasses.replace(law, axes=axes))


def _scorer(
    problem: Problem,
    experts: Population,
    settings: Settings,
    mapper: dv.Mapper,
    block_size: int | str,
) -> Scorer | PieceScorer:
    """The score function on the devices: on all items, or on any pieces of them."""
    rule, N = settings.rule, len(experts)
    most = None if settings.run_dir is None else run_log.most_per_call(N)
    if rule is None:
        return Scorer(
            problem.score_fn,
            problem.params,
            experts,
            problem.train,
            mapper=mapper,
            grade=problem.grade,
            block_size=block_size,
            keep_items=settings.keep_items,
            most=most,
            with_id=problem.with_id,
            stream=settings.stream,
        )
    return PieceScorer(
        problem.score_fn,
        problem.params,
        experts,
        problem.train,
        piece=lambda B: rule.piece(N, B, max(settings.k)),
        mapper=mapper,
        grade=problem.grade,
        layout=problem.layout,
        block_size=block_size,
        most=most,
        with_id=problem.with_id,
        stream=settings.stream,
    )


@dataclasses.dataclass(frozen=True)
class _Predict:
    predictor: Predictor
    combine: Combine

    def __call__(self, batch: Any) -> Any:
        return self.combine(self.predictor(batch))


def check_ks(k: int | Sequence[int], num: int) -> tuple[int, ...]:
    """Returns the ensemble sizes as a tuple; each must be between 1 and `num`."""
    sizes = tuple(k) if isinstance(k, Sequence | np.ndarray) else (k,)
    if not sizes:
        raise ArgumentError("k is empty; give at least one ensemble size")
    for size in sizes:
        check_count("k", size)
        if size > num:
            raise ArgumentError(f"k={size} is larger than num={num}; lower k or raise num")
    return tuple(int(size) for size in sizes)


@contextlib.contextmanager
def _what_is_kept(log: run_log.RunLog | None) -> Iterator[None]:
    """Where a grade raised in a logged run, its error says that scores are not lost."""
    try:
        yield
    except ScoreError as error:
        if log is None or error.__cause__ is None:
            raise
        raise ScoreError(f"{error}; what is scored is kept in the log") from error.__cause__


_Tell = Callable[..., None]


def _teller(problem: Problem, settings: Settings) -> _Tell:
    """Returns `tell(done [N], base, best score, tokens)`, for who asked how far the search is."""

    def tell(done: np.ndarray, base: Scores, best: float, tokens: float, stage: str = "") -> None:
        count, N = int(done.sum()), len(done)
        if settings.progress is not None:
            settings.progress(count, N)
        if settings.watch is not None:
            unit = problem.metric.from_score
            watch = Watch(
                done=count,
                total=N,
                best=unit(best) if np.isfinite(best) else None,
                base=None if base.failed[0] else unit(float(base.values[0])),
                tokens=int(tokens) if "tokens" in base.columns else None,
                stage=stage,
            )
            settings.watch(watch)

    return tell


def _score(
    scorer: Scorer, experts: Population, log: run_log.RunLog | None, tell: _Tell
) -> tuple[Scores, Scores, float]:
    """Scores the base and every expert that the log does not have; returns both and seconds."""
    N = len(experts)
    base, pieces, seconds = None, [], 0.0
    if log is not None:
        base = log.read_base()
        for start, scores, spent in log.segments():
            pieces.append((start, scores))
            seconds += spent
    base, pieces, seconds = dv.from_first((base, pieces, seconds))
    done = np.zeros(N, bool)
    for start, scores in pieces:
        done[start : start + len(scores)] = True
    if base is None:
        base = concatenate([part for _, part in scorer.stream(unperturbed(experts))])
        if log is not None:
            log.write_base(base)
    best, tokens = max((float(x.values.max()) for _, x in pieces), default=-np.inf), 0.0
    tell(done, base, best, tokens)
    most = run_log.most_per_call(N)
    try:
        for begin, end in resuming.missing(done):
            clock = time.monotonic()
            for start, scores in scorer.stream(experts[begin:end], most):
                spent, clock = time.monotonic() - clock, time.monotonic()
                pieces.append((begin + start, scores))
                seconds += spent
                done[begin + start : begin + start + len(scores)] = True
                if log is not None:
                    log.append(begin + start, scores, spent)
                best = max(best, float(scores.values.max()))
                tokens += float(np.nansum(scores.columns.get("tokens", 0)))
                tell(done, base, best, tokens)
    finally:
        if log is not None:
            log.flush()
    pieces.sort(key=lambda piece: piece[0])
    return base, concatenate([scores for _, scores in pieces]), seconds


def _race(
    scorer: PieceScorer,
    experts: Population,
    log: run_log.RunLog | None,
    problem: Problem,
    settings: Settings,
) -> tuple[Scores, racing.Raced, float]:
    """Scores the base on all items, and the experts in rounds; returns both and seconds."""
    rule, tell = settings.rule, _teller(problem, settings)
    assert rule is not None
    base = dv.from_first(None if log is None else log.read_base())
    if base is None:
        base = scorer.all_items(unperturbed(experts))
        if log is not None:
            log.write_base(base)
    bounds = problem.metric.bounds
    if isinstance(rule, race.Race) and rule.bounds is None and bounds is not None:
        outcomes = base.items[0][np.isfinite(base.items[0])]
        if len(outcomes) and outcomes.min() >= bounds[0] and outcomes.max() <= bounds[1]:
            rule = dataclasses.replace(rule, bounds=bounds)

    def open_log(number: int, positions: np.ndarray, items: int) -> run_log.RunLog | None:
        return None if log is None else log.round(number, positions, items / scorer.count)

    def say(now: racing.Standing) -> None:
        stage = f"round {now.number}, items {now.start + 1} to {now.stop} of {scorer.count}"
        tell(now.done, base, now.best, now.tokens, stage)

    found, seconds = racing.run(scorer, experts, rule, max(settings.k), open_log=open_log, tell=say)
    return base, found, seconds


def _on_first(action: Callable[[], Any], otherwise: Any) -> Any:
    """Runs `action` on process 0 alone; if it fails there, every process raises."""
    error: ThicketError | None = None
    result = otherwise
    if jax.process_index() == 0:
        try:
            result = action()
        except ThicketError as caught:
            error = caught
    message = dv.from_first(None if error is None else str(error))
    if error is not None:
        raise error
    if message is not None:
        raise RunError(message)
    return result
