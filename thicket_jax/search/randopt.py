"""`tj.randopt`: the pipeline for a user's own function."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles.combine import Combine, majority_vote
from thicket_jax.errors import ArgumentError, check_flag, shown
from thicket_jax.experts.arguments import check_arrays, check_callable
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, check_num, population
from thicket_jax.mapping.placement import place
from thicket_jax.scoring.layouts import check_batch, check_items
from thicket_jax.scoring.metrics import Metric, metric, own_metric
from thicket_jax.scoring.scores import Grade, Progress, ScoreFn
from thicket_jax.search import agreement
from thicket_jax.search.pipeline import Result, execute
from thicket_jax.search.problem import SCORE, Problem, Settings, check_ks
from thicket_jax.selection.rules import check_rule


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
      train: batch that scores the experts, as in `tj.score`.
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
      delta: with `"race"` and bounds, probability that the kept experts are not the best; default
        0.05.
      bounds: with `"race"`, (low, high) of an outcome; default 0 to 1 for `metric="accuracy"` if
        the base's outcomes lie there. Without any, a race is a heuristic.
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

    def prepare() -> tuple[Problem, Population, Settings, dict[str, Any]]:
        rules = _rules(combine, predict_fn)
        check_callable("score_fn", score_fn, optional=False)
        for name, function in (
            ("predict_fn", predict_fn),
            ("grade", grade),
            ("progress", progress),
        ):
            check_callable(name, function)
        for name, tree in (("params", params), ("train", train), ("test", test)):
            check_arrays(name, tree)
        for name, flag in (("keep_items", keep_items), ("resume", resume)):
            check_flag(name, flag)
        if run_dir is not None and not isinstance(run_dir, str | os.PathLike):
            raise ArgumentError(f"run_dir={shown(run_dir)} must be a path")
        check_num(num, antithetic)
        ks = check_ks(k, num)
        if resume and run_dir is None:
            raise ArgumentError("resume=True goes on with a run; pass run_dir=, where it is")
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
            "k": list(ks),
            "sigma": [float(s) for s in np.atleast_1d(np.asarray(sigma, np.float64))],
            "noise": experts.noise.family,
            **experts.noise.options_json(),
            "antithetic": antithetic,
            "assign": assign,
        }
        about = {"task": _name(score_fn), "model": "own model", "options": options}
        selection = check_rule(select, budget, delta, bounds)
        check = check_batch if selection is None else check_items
        for name, batch in (("train", train), ("test", test)):
            check(batch, name)
        if selection is not None and not keep_items:
            raise ArgumentError(
                f"select={select!r} keeps every outcome; leave out keep_items=False"
            )
        placement = place(
            params, devices=devices, backend=backend, block_size=block_size, stream=stream
        )
        settings = Settings(
            k=ks,
            placement=placement,
            keep_items=keep_items,
            run_dir=None if run_dir is None else pathlib.Path(run_dir),
            resume=resume,
            progress=progress,
            rule=selection,
        )
        return problem, experts, settings, about

    # What is refused on one of several processes ends all of them.
    return execute(*agreement.together(prepare))


def _rules(combine: Any, predict_fn: Any) -> list[Combine]:
    """The combine rules; two of one name would be one in the table."""
    rules = list(combine) if isinstance(combine, Sequence) else [combine]
    for rule in rules:
        if not callable(rule):
            raise ArgumentError(
                f"combine={shown(rule)} is not a function; pass tj.majority_vote or such"
            )
    names = [_name(rule) for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(f"combine has two rules called {name!r}; give each its own name")
    if not rules:
        raise ArgumentError("combine is empty; give a rule, such as tj.majority_vote")
    asked = [name for name, rule in zip(names, rules, strict=True) if rule is not majority_vote]
    if predict_fn is None and asked:
        raise ArgumentError(f"combine={asked[0]} joins predictions; pass predict_fn=, or leave out")
    return rules


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
        return own_metric(_name(value), value)
    return metric(value)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
