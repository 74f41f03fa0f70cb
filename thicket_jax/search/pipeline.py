"""The pipeline: sample → score → select → ensemble → report, logged and resumable.

The only file that imports every stage. `randopt` is its form for a user's own function; the
command line runs tasks through the same `execute`.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles.combine import with_weights
from thicket_jax.ensembles.prediction import Predictor, combined
from thicket_jax.errors import ArgumentError, RunError, ScoreError, ThicketError
from thicket_jax.experts import rounding
from thicket_jax.experts.leaves import check_useful_rank
from thicket_jax.experts.population import Population, check_key, unperturbed
from thicket_jax.mapping.devices import from_first
from thicket_jax.mapping.placement import Placement
from thicket_jax.mapping.usage import matrix_axes
from thicket_jax.reports import report, results
from thicket_jax.runs import digests
from thicket_jax.runs.files import fingerprint
from thicket_jax.runs.log import RunLog, most_per_call
from thicket_jax.scoring.layouts import check_batch, check_items
from thicket_jax.scoring.pieces import PieceScorer
from thicket_jax.scoring.resuming import Scored, score_missing
from thicket_jax.scoring.scorer import Scorer, ScorerProtocol
from thicket_jax.scoring.scores import Scores, concatenate
from thicket_jax.search import agreement, manifest
from thicket_jax.search import answers as test_answers
from thicket_jax.search.problem import Problem, SearchProgress, Settings, check_ks
from thicket_jax.selection import rounds
from thicket_jax.selection.race import Race
from thicket_jax.selection.ranking import ranking, top_k
from thicket_jax.selection.rounds import RoundProgress, Rule, SelectionResult


@dataclasses.dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
      population: all N experts.
      scores: of all N, on the training items.
      experts: the best max(k), best first.
      predict: `predict(batch) -> [B, ...]`, the ensemble of the experts under the first combine
        rule; without a `predict_fn` it says so.
      table: the content of results.json: base, best, ensembles, density, timing.
      run_dir: where it was written, or None.
    """

    population: Population
    scores: Scores
    experts: Population
    predict: Callable[[Any], Any]
    table: dict[str, Any]
    run_dir: pathlib.Path | None

    def __repr__(self) -> str:
        """Returns how many experts were searched, and base and best on the training items."""
        base, best = (self.table.get(name, {}).get("train") for name in ("base", "best"))
        return (
            f"Result: {len(self.experts)} of {len(self.population)} experts kept\n"
            f"  base {base}, best expert {best} on train\n"
            f"  run_dir: {self.run_dir}"
        )


def execute(
    problem: Problem, experts: Population, settings: Settings, about: Mapping[str, Any]
) -> Result:
    """Runs the pipeline; every process calls it, process 0 alone writes, and holds the run's lock.

    Args:
      problem: what is searched.
      experts: the population.
      settings: how, and where to.
      about: entries of config.json that name the run: task, model, options, notes, command.
    """
    with contextlib.ExitStack() as held:
        return _execute(problem, experts, settings, about, held)


def _execute(
    problem: Problem,
    experts: Population,
    settings: Settings,
    about: Mapping[str, Any],
    held: contextlib.ExitStack,
) -> Result:
    check_key(experts.key)
    agreement.check(agreement.facts_of(problem, experts, settings))
    check_ks(settings.k, len(experts))
    begins = settings.on_phase or (lambda phase: None)
    experts = with_axes(problem, experts)
    test_answers.check(problem)
    run_dir = settings.run_dir
    first = jax.process_index() == 0
    if run_dir is not None:
        settings = dataclasses.replace(settings, placement=_logged_placement(settings, experts))
    _check_inputs(problem)
    begins("compiling the program that scores")
    scorer = _scorer(problem, experts, settings)
    ready = scorer.expert_map
    told = rounding.check(problem.params, ready.plan, experts, ready.scales)
    about = {**about, "notes": [*about.get("notes", ()), *told]} if told else about
    ready.prepare(experts)
    config = manifest.config_of(problem, experts, settings, about, scorer) if first else {}
    log = None
    if run_dir is not None:
        log = on_first(lambda: manifest.open_log(run_dir, settings, config, len(experts)), None)
        if log is not None:
            held.callback(log.close)
    begins("scoring the base")
    with _what_is_kept(log):
        base = _score_base(scorer, experts, log)
        if settings.rule is None:
            begins(f"scoring {len(experts)} experts")
        tell = _teller(problem, settings, base)
        scores, raced, score_seconds = _score(scorer, experts, base, log, problem, settings, tell)
    kept = top_k(experts, scores, max(settings.k))

    if problem.test is not None:
        begins("answering the test items")
    began = time.monotonic()
    with _what_is_kept(log):
        answered = _answer_teller(settings)
        answers = test_answers.answer(problem, experts, scores, kept, scorer, answered)
    timing = {
        "setup_s": settings.setup_seconds,
        "compile_s": scorer.expert_map.compile_seconds,
        "score_s": score_seconds,
        "ensemble_s": time.monotonic() - began,
        "experts_per_s": len(experts) / max(score_seconds, 1e-9),
    }
    table: dict[str, Any] = {}
    if first:
        begins("making tables and figures" if run_dir is not None else "making tables")
        record = manifest.record_of(problem, experts, scores, base, answers, config, timing, raced)
        table = results.build_results(record, metric=problem.metric, rules=problem.combines)
        if run_dir is not None:
            manifest.write(record, run_dir)
            report.write(record, run_dir, table, draw=settings.draw, metric=problem.metric)
            digests.seal(run_dir)
    predict: Callable[[Any], Any] = _no_predict
    if problem.predict_fn is not None:
        predict = _predict(problem, experts, scores, kept, settings.placement, settings.rule)
    return Result(experts, scores, kept, predict, table, run_dir)


def _no_predict(batch: Any) -> Any:
    raise ArgumentError(
        "this search had no predict_fn, so nothing predicts; pass predict_fn= to tj.randopt, or "
        "give its experts to tj.ensemble"
    )


def _logged_placement(settings: Settings, experts: Population) -> Placement:
    """The placement of a run that is logged: a stored run keeps its block, and blocks are short."""
    run_dir, placement = settings.run_dir, settings.placement
    assert run_dir is not None
    stored = on_first(lambda: manifest.before(run_dir, settings), placement.block_size)
    size, most = from_first(stored), most_per_call(len(experts))
    return dataclasses.replace(placement, block_size=size, most=most)


def _check_inputs(problem: Problem) -> None:
    """Raises `RunError` unless all processes search the same."""
    if jax.process_count() == 1:
        return
    inputs = {
        "base parameters": fingerprint(problem.params),
        "training data": fingerprint(problem.without_hints(problem.train)),
        "test data": fingerprint(manifest.test_of(problem)),
    }
    try:
        agreement.check(inputs)
    except RunError as error:
        raise RunError(
            f"{error} (for the command line: one --cache on a shared file system)"
        ) from None


def with_axes(problem: Problem, experts: Population) -> Population:
    """Returns the population with its law's axes found, where it needs some and names none."""
    law = experts.noise
    check_useful_rank(problem.params, law)
    if not law.needs_axes:
        return experts
    rest = (problem.train, np.int32(0)) if problem.with_id else (problem.train,)
    axes = matrix_axes(problem.score_fn, problem.params, *rest, oriented=law.oriented)
    law = dataclasses.replace(law, axes=axes)
    check_useful_rank(problem.params, law)
    return dataclasses.replace(experts, noise=law)


def _scorer(problem: Problem, experts: Population, settings: Settings) -> ScorerProtocol:
    """The score function on the devices: on all items, or on any pieces of them."""
    rule, N = settings.rule, len(experts)
    if rule is None:
        return Scorer.placed(
            problem.score_fn,
            problem.params,
            experts.noise,
            problem.train,
            settings.placement,
            grade=problem.grade,
            keep_items=settings.keep_items,
            with_id=problem.with_id,
        )
    return PieceScorer(
        problem.score_fn,
        problem.params,
        experts,
        problem.train,
        settings.placement,
        piece=lambda B: rule.piece(N, B, max(settings.k)),
        grade=problem.grade,
        layout=problem.layout,
        with_id=problem.with_id,
    )


def _predict(
    problem: Problem,
    experts: Population,
    scores: Scores,
    kept: Population,
    placement: Placement,
    rule: Rule | None,
) -> Callable[[Any], Any]:
    """Returns the ensemble of the kept experts, a function of a batch."""
    assert problem.predict_fn is not None
    placement = dataclasses.replace(placement, block_size="auto")
    predictor = Predictor(
        problem.predict_fn, problem.params, kept, placement, with_id=problem.with_id
    )
    weights = scores.values[ranking(scores, experts)[: len(kept)]]
    combine = with_weights(next(iter(problem.combines.values())), weights)
    return combined(predictor, combine, check_batch if rule is None else check_items)


@contextlib.contextmanager
def _what_is_kept(log: RunLog | None) -> Iterator[None]:
    """Where a grade raised in a logged run, its error says that scores are not lost."""
    try:
        yield
    except ScoreError as error:
        if log is None or error.__cause__ is None:
            raise
        raise ScoreError(f"{error}; what is scored is kept in the log") from error.__cause__


_Tell = Callable[..., None]


def _teller(problem: Problem, settings: Settings, base: Scores) -> _Tell:
    """Returns `tell(scored, stage)`, for who asked how far the search is."""
    unit = problem.metric.from_score

    def tell(scored: Scored, stage: str = "") -> None:
        count, N = int(scored.done.sum()), len(scored.done)
        if settings.progress is not None:
            settings.progress(count, N)
        if settings.on_progress is not None:
            now = SearchProgress(
                done=count,
                total=N,
                best=unit(scored.best) if np.isfinite(scored.best) else None,
                base=None if base.failed[0] else unit(float(base.values[0])),
                tokens=int(scored.tokens) if "tokens" in base.columns else None,
                stage=stage,
            )
            settings.on_progress(now)

    return tell


def _answer_teller(settings: Settings) -> Callable[[int, int], None]:
    """Returns `tell(answers read, of how many)`, for who asked how far the search is."""

    def tell(done: int, total: int) -> None:
        if settings.on_progress is not None:
            stage = "answering the test items"
            now = SearchProgress(done, total, None, None, None, stage, "answer")
            settings.on_progress(now)

    return tell


def _score_base(scorer: ScorerProtocol, experts: Population, log: RunLog | None) -> Scores:
    """Scores θ itself on all items, unless the log has it."""
    base = from_first(None if log is None else log.read_base())
    if base is None:
        base = scorer.all_items(unperturbed(experts))
        if log is not None:
            log.write_base(base)
    return base


def _score(
    scorer: ScorerProtocol,
    experts: Population,
    base: Scores,
    log: RunLog | None,
    problem: Problem,
    settings: Settings,
    tell: _Tell,
) -> tuple[Scores, SelectionResult | None, float]:
    """Scores who is not in the log; returns scores, how rounds went if any, and seconds."""
    if settings.rule is not None:
        found, seconds = _score_in_rounds(
            scorer, experts, _bounded(settings.rule, problem, base), max(settings.k), log, tell
        )
        return found.scores, found, seconds
    N = len(experts)

    def stream(begin: int, end: int) -> Iterator[tuple[int, Scores]]:
        return scorer.stream(experts[begin:end], most=most_per_call(N))

    parts, seconds = score_missing(stream, N, log, tell)
    return concatenate([scores for _, scores in parts]), None, seconds


def _bounded(rule: Rule, problem: Problem, base: Scores) -> Rule:
    """A race takes the metric's bounds, where the base's outcomes lie in them."""
    bounds = problem.metric.bounds
    if not isinstance(rule, Race) or rule.bounds is not None or bounds is None:
        return rule
    assert base.items is not None
    outcomes = base.items[0][np.isfinite(base.items[0])]
    if len(outcomes) and outcomes.min() >= bounds[0] and outcomes.max() <= bounds[1]:
        return dataclasses.replace(rule, bounds=bounds)
    return rule


def _score_in_rounds(
    scorer: Any, experts: Population, rule: Rule, k: int, log: RunLog | None, tell: _Tell
) -> tuple[SelectionResult, float]:
    def open_log(number: int, positions: np.ndarray, items: int) -> RunLog | None:
        return None if log is None else log.round(number, positions, items / scorer.count)

    def say(now: RoundProgress) -> None:
        stage = f"round {now.number}, items {now.start + 1} to {now.stop} of {scorer.count}"
        tell(now.scored, stage)

    return rounds.run(scorer, experts, rule, k, open_log=open_log, tell=say)


def on_first(action: Callable[[], Any], otherwise: Any) -> Any:
    """Runs `action` on process 0 alone; if it fails there, every process raises."""
    error: ThicketError | None = None
    result = otherwise
    if jax.process_index() == 0:
        try:
            result = action()
        except ThicketError as caught:
            error = caught
    message = from_first(None if error is None else str(error))
    if error is not None:
        raise error
    if message is not None:
        raise RunError(message)
    return result
