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

from thicket_jax import answers as test_answers
from thicket_jax import devices as dv
from thicket_jax import manifest, racing, report, runlog
from thicket_jax.answers import unperturbed
from thicket_jax.ensembles import Combine, Predictor, majority_vote, with_weights
from thicket_jax.errors import ArgumentError, RunError, ScoreError, ThicketError
from thicket_jax.experts import Population, check_count, check_key, population
from thicket_jax.metrics import Metric, metric
from thicket_jax.noise import LOW_RANK, MODULAR, Noise
from thicket_jax.perturbation import plan
from thicket_jax.pieces import PieceScorer
from thicket_jax.problem import SCORE, Problem, Settings, Watch
from thicket_jax.scoring import Grade, Progress, ScoreFn, Scorer, Scores, concatenate
from thicket_jax.selection import ranking, top_k
from thicket_jax.usage import matrix_axes


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


def randopt(
    score_fn: ScoreFn,
    params: Any,
    train: Any,
    *,
    key: jax.Array,
    num: int,
    k: int | Sequence[int],
    sigma: float | Sequence[float],
    noise: Noise | None = None,
    antithetic: bool = False,
    assign: str = "cycle",
    predict_fn: Callable[[Any, Any], Any] | None = None,
    test: Any = None,
    targets: Any = None,
    metric: str | Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    combine: Combine | Sequence[Combine] = majority_vote,
    grade: Grade | None = None,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    keep_items: bool = True,
    stream: bool = False,
    select: str = "all",
    budget: float | None = None,
    delta: float | None = None,
    bounds: Sequence[float] | None = None,
    run_dir: str | pathlib.Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Samples, scores, selects and ensembles experts around θ (Neural Thickets, RandOpt).

    Args:
      score_fn: `(params, batch) -> float [] or [B]`, pure, higher is better.
      params: θ; never modified.
      train: batch that scores the experts.
      key: typed key; not consumed: the same key gives the same experts.
      num: experts to sample, N.
      k: ensemble size, or several; the best max(k) experts are kept.
      sigma, noise, antithetic, assign: as in `tj.population`. A low-rank or modular law that
        names no axes gets those of `tj.matrix_axes`.
      predict_fn: `(params, batch) -> answers [B, ...]`; needed for an ensemble.
      test: held-out batch, disjoint from `train`; with `predict_fn`, `targets` and `metric`, the
        table compares base, best expert and ensembles on it.
      targets: what answers are graded against, [B_test, ...].
      metric: `"accuracy"`, `"mse"`, or a function (answers [B, ...], targets) -> [B], higher is
        better.
      combine: combine rule or rules; the first is the one `predict` uses.
      grade, block_size, devices, backend, keep_items, stream, progress: as in `tj.score`.
      select: `"all"` scores every expert on all of `train`; `"halving"` and `"race"` select in
        rounds, as `tj.halving` and `tj.race` do, and need one outcome per item.
      budget: with `"halving"`, share of the outcomes that may be computed; default 0.1.
      delta: with `"race"`, probability that the kept experts are not the best; default 0.05.
      bounds: with `"race"`, (low, high) of an outcome; default 0 to 1 for `metric="accuracy"` if
        the base's outcomes lie there, else as in `tj.race`.
      run_dir: write the run directory of the command line there, as the run goes.
      resume: go on with an interrupted run in `run_dir`; refused if anything differs.

    Returns:
      A `Result`. Memory: as `tj.score`, and the answers of the kept experts on `test`.

    Raises:
      ThicketError: with one line that says which argument, what was found and what to do.

    Example:
      >>> import jax.numpy as jnp
      >>> found = randopt(lambda w, x: -((w - x) ** 2), jnp.zeros(()), jnp.ones(4),
      ...                 key=jax.random.key(0), num=100, k=5, sigma=0.5)
      >>> bool(found.scores.values.max() > found.table["base"]["train"])
      True
    """
    rules = list(combine) if isinstance(combine, Sequence) else [combine]
    for rule in rules:
        if not callable(rule):
            raise ArgumentError(
                f"combine={rule!r} is not a function; pass tj.majority_vote or such"
            )
    _check_test(predict_fn, test, targets, metric)
    problem = Problem(
        score_fn=score_fn,
        params=params,
        train=train,
        predict_fn=predict_fn,
        test=test,
        targets=None if targets is None else np.asarray(targets),
        metric=_metric(metric),
        combines={_name(rule): rule for rule in rules},
        grade=grade,
    )
    experts = population(key, num, sigma, noise=noise, antithetic=antithetic, assign=assign)
    options = {
        "num": num,
        "k": list(check_ks(k, num)),
        "sigma": [float(s) for s in np.atleast_1d(np.asarray(sigma, np.float64))],
        "noise": experts.noise.family,
        **_low_rank(experts.noise),
        "antithetic": antithetic,
        "assign": assign,
    }
    about = {"task": _name(score_fn), "model": "own model", "options": options}
    selection = racing.check_rule(select, budget, delta, bounds)
    if selection is not None and not keep_items:
        raise ArgumentError(f"select={select!r} keeps every outcome; leave out keep_items=False")
    settings = Settings(
        k=check_ks(k, num),
        block_size=block_size,
        devices=devices,
        backend=backend,
        keep_items=keep_items,
        stream=stream,
        run_dir=None if run_dir is None else pathlib.Path(run_dir),
        resume=resume,
        progress=progress,
        rule=selection,
    )
    return execute(problem, experts, settings, about)


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
        inputs = runlog.fingerprint((problem.params, problem.train, manifest.test_of(problem)))
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
        table = report.build_results(record, metric=problem.metric, rules=problem.combines)
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
    most = None if settings.run_dir is None else runlog.most_per_call(N)
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
def _what_is_kept(log: runlog.RunLog | None) -> Iterator[None]:
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
    scorer: Scorer, experts: Population, log: runlog.RunLog | None, tell: _Tell
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
    most = runlog.most_per_call(N)
    try:
        for begin, end in racing.missing(done):
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
    log: runlog.RunLog | None,
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
    if isinstance(rule, racing.Race) and rule.bounds is None and bounds is not None:
        outcomes = base.items[0][np.isfinite(base.items[0])]
        if len(outcomes) and outcomes.min() >= bounds[0] and outcomes.max() <= bounds[1]:
            rule = dataclasses.replace(rule, bounds=bounds)

    def open_log(number: int, positions: np.ndarray, items: int) -> runlog.RunLog | None:
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


def _check_test(predict_fn: Any, test: Any, targets: Any, metric_: Any) -> None:
    if test is None:
        if targets is not None:
            raise ArgumentError("targets were given without test; pass test=, the held-out batch")
        return
    missing = [
        name
        for name, value in (("predict_fn", predict_fn), ("targets", targets), ("metric", metric_))
        if value is None
    ]
    if missing:
        raise ArgumentError(
            f"test was given without {' and '.join(missing)}; test answers are made by predict_fn "
            "and graded by metric against targets"
        )


def _metric(value: str | Callable[..., Any] | None) -> Metric:
    if value is None:
        return SCORE
    if callable(value):
        return Metric(_name(value), True, value)
    return metric(value)


def _low_rank(law: Noise) -> dict[str, Any]:
    return {"rank": law.rank, "factors": law.factors} if law.family == LOW_RANK else {}


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
