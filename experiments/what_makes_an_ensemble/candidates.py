"""One search's answers: all experts on the train items, the best and a random control on test.

Shapes: N experts, M candidates (the best of N), R random experts, B items, C classes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.what_makes_an_ensemble.cases import Case
from thicket_jax.ensembles import merging
from thicket_jax.experts import population as populations
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, population
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.blocks import ExpertMap, expert_map
from thicket_jax.mapping.functions import mapped
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring import metrics
from thicket_jax.scoring.scores import Scores
from thicket_jax.search import answers as test_answers
from thicket_jax.selection.ranking import ranking
from thicket_jax.tasks import registry, task


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What everybody answered; candidates are best first by their train score.

    Attributes:
      metric: of `train_targets` and `test_targets`; answers are what its `per_item` takes.
      train, test: the candidates' answers [M, B, ...].
      base_train, base_test: of the base, [B, ...].
      random: on the test items, of fresh experts, [R, B, ...]: nobody scored them.
      merged: K → the answers of the one model `tj.merge` of the best K, on the test items.
      sigmas, random_sigmas: float [M] and [R].
      logits: whether answers are class scores.
      scores: of all N, on the train items, the failed left out.
      failed: how many of the N failed, and of the random ones.
    """

    metric: metrics.Metric
    train: np.ndarray
    test: np.ndarray
    base_train: np.ndarray
    base_test: np.ndarray
    random: np.ndarray
    merged: dict[int, np.ndarray]
    train_targets: np.ndarray
    test_targets: np.ndarray
    sigmas: np.ndarray
    random_sigmas: np.ndarray
    logits: bool
    scores: np.ndarray
    failed: tuple[int, int]


def collect(
    case: Case, seed: int, cache: str, model: str | None = None, block_size: int | str = "auto"
) -> Candidates:
    """Runs one search with one seed; the base is trained, in `cache`, or read from `model`."""
    module = registry.module(case.task)
    given = {"model": model} if case.task == "stories" else {}
    options = module.Options(
        num=case.num,
        k=(1,),
        sigma=case.sigma,
        train_items=case.train_items,
        test_items=case.test_items,
        seed=seed,
        cache=cache,
        **dict(case.options),
        **given,
    ).resolved()
    task = module.build(options)
    experts = population(
        jax.random.key(seed, impl=options.prng),
        case.num,
        options.sigma,
        noise=Noise(options.noise, options.where, options.scale),
    )
    try:
        collected = _of_text if task.problem.answering is not None else _of_arrays
        return collected(task, experts, case, block_size)
    finally:
        if task.close is not None:
            task.close()


def _of_arrays(task: task.Task, experts: Population, case: Case, block: int | str) -> Candidates:
    """A task whose answers are arrays: one program a batch, on the train and on the test items."""
    metric = task.problem.metric
    key = "future" if task.problem.metric.name == "mse" else "label"
    train_targets, test_targets = (
        np.asarray(x[key]) for x in (task.problem.train, task.problem.test)
    )
    mapper = dv.make_mapper(None, "pmap", task.problem.params)

    def program(batch: Any) -> ExpertMap:
        return expert_map(
            mapped(task.problem.predict_fn),
            task.problem.params,
            experts.noise,
            batch,
            Placement(mapper, block),
        )

    trained = program(task.problem.train)
    answered = _outputs(trained, populations.unperturbed(experts) + experts)
    base_train, answered = answered[0], answered[1:]
    sign = 1.0 if metric.higher_is_better else -1.0
    values = np.array([sign * metric.per_item(x, train_targets).mean() for x in answered])
    chosen, best, fresh, scores = _chosen(experts, values, case)
    tested = program(task.problem.test)
    found = _outputs(tested, populations.unperturbed(experts) + best + fresh)
    M = len(best)
    merged = {
        k: _outputs(tested.at(merging.merge(task.problem.params, best[:k])),
                    populations.unperturbed(experts))[0]
        for k in case.ks
    }  # fmt: skip
    return _candidates(
        metric, scores, best, fresh, merged,
        train=answered[chosen], test=found[1 : M + 1], base_train=base_train, base_test=found[0],
        random=found[M + 1 :], train_targets=train_targets, test_targets=test_targets,
        logits=task.problem.metric.name == "accuracy",
    )  # fmt: skip


def _of_text(task: task.Task, experts: Population, case: Case, block: int | str) -> Candidates:
    """A task whose answers are read on the host: classes, and the outcome of each as targets."""
    mapper = dv.make_mapper(None, "pmap", task.problem.params)
    decoding = expert_map(
        mapped(task.problem.score_fn, with_id=True),
        task.problem.params,
        experts.noise,
        task.problem.train,
        Placement(mapper, block),
    )
    base = populations.unperturbed(experts)
    train_strings, train_items = _read(decoding, base + experts, [task.problem.grade])
    values = train_items[1:].mean(1, dtype=np.float64)
    chosen, best, fresh, scores = _chosen(experts, values, case)
    how = task.problem.answering
    readers = [lambda out, i=i: how.read(i, out) for i in range(len(how.pieces))]
    maps = [decoding.on(piece) for piece in how.pieces]
    tested = [_read(m, base + best + fresh, [r]) for m, r in zip(maps, readers, strict=True)]
    merges: list[tuple[np.ndarray, np.ndarray]] = []
    for k in case.ks:
        params = merging.merge(task.problem.params, best[:k])
        parts = [_read(m.at(params), base, [r]) for m, r in zip(maps, readers, strict=True)]
        merges.append(tuple(np.concatenate(x, 1) for x in zip(*parts, strict=True)))  # type: ignore[arg-type]
    strings, items = (np.concatenate(x, 1) for x in zip(*tested, strict=True))
    strings = np.concatenate([strings, *(x for x, _ in merges)])
    items = np.concatenate([items, *(x for _, x in merges)])
    classes, M, R = how.classes(strings), len(best), len(fresh)
    train_classes = how.classes(train_strings)
    return _candidates(
        metrics.metric("accuracy"), scores, best, fresh,
        {k: classes[1 + M + R + i] for i, k in enumerate(case.ks)},
        train=train_classes[1:][chosen], test=classes[1 : M + 1],
        base_train=train_classes[0], base_test=classes[0], random=classes[M + 1 : M + R + 1],
        train_targets=test_answers.outcome_table(train_classes, train_items),
        test_targets=test_answers.outcome_table(classes, items),
        logits=False,
    )  # fmt: skip


def _outputs(program: ExpertMap, experts: Population) -> np.ndarray:
    return np.concatenate([np.asarray(chunk.outputs) for chunk in program.chunks(experts)])


def _read(
    program: ExpertMap, experts: Population, readers: Sequence[Callable[[Any], Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Answers, object [n, B], and outcomes, float [n, B]."""
    (reader,) = readers
    parts: Iterator[Any] = (reader(chunk.outputs) for chunk in program.chunks(experts))
    strings, items = zip(*((part.answers, part.items) for part in parts), strict=True)
    return np.concatenate(strings), np.concatenate(items)


def _chosen(
    experts: Population, values: np.ndarray, case: Case
) -> tuple[np.ndarray, Population, Population, Scores]:
    """Positions of the candidates, these, fresh experts at the best ones' sigmas, and scores."""
    failed = ~np.isfinite(values)
    scores = Scores(np.where(failed, -np.inf, values).astype(np.float32), failed)
    order = ranking(scores, experts)[: min(case.pool, int((~failed).sum()))]
    best = experts[order]
    return order, best, test_answers.random_control(experts, best[: case.fresh]), scores


def _candidates(
    metric: metrics.Metric,
    scores: Scores,
    best: Population,
    fresh: Population,
    merged: dict[int, np.ndarray],
    **found: Any,
) -> Candidates:
    """Leaves out fresh experts that failed: a control of experts that answer."""
    random = found.pop("random")
    good = np.isfinite(np.asarray(random, np.float64)).reshape(len(random), -1).all(1)
    return Candidates(
        metric=metric,
        merged=merged,
        random=random[good],
        sigmas=np.asarray(best.sigmas),
        random_sigmas=np.asarray(fresh.sigmas)[good],
        scores=scores.values[~scores.failed].astype(np.float64),
        failed=(int(scores.failed.sum()), int((~good).sum())),
        **found,
    )
