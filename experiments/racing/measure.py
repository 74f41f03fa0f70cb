"""One search, done in every way: full scoring, halving, a race → one JSON record."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import population
from thicket_jax.mapping import programs as kept
from thicket_jax.mapping.placement import place
from thicket_jax.search import pipeline
from thicket_jax.selection import halving, race
from thicket_jax.selection import rounds as racing
from thicket_jax.tasks import registry, task

SMALLER = "halving, 0.06"
WAYS: dict[str, racing.Rule | None] = {
    "full": None,
    "halving, 0.1": halving.Halving(0.1),
    SMALLER: halving.Halving(0.06),
    "race, 0.05": race.Race(0.05),
}
"""By name, with the budget of a halving and δ of a race, an error probability given bounds."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A task and how large it is; part of what identifies a result.

    Attributes:
      task: its name.
      num: experts, N.
      k: of which so many are kept, K.
      train_items: items that score the experts, B.
      test_items: items on which base, best and ensemble are compared.
      seeds: seeds 0, 1, ... of population, data and base.
    """

    task: str
    num: int
    k: int
    train_items: int
    test_items: int
    seeds: int


FULL = (
    Case("signals", 1000, 10, 1024, 256, 5),
    Case("digits", 500, 10, 400, 600, 5),
    Case("stories", 512, 10, 32, 64, 3),
)
QUICK = (
    Case("signals", 100, 2, 64, 8, 1),
    Case("digits", 100, 2, 64, 20, 1),
    Case("stories", 100, 2, 32, 4, 1),
)


def measure(
    case: Case,
    seed: int,
    model: str | None = None,
    *,
    block_size: int | str = "auto",
    cold: bool = True,
    once: bool = False,
) -> dict[str, Any]:
    """Searches with one seed in every way; the base model is there before any clock runs.

    A run that has something to compile is run again, so that `seconds` are of runs that compile
    nothing. With `cold`, all that was compiled before is dropped first, and the first run's
    seconds are kept as well.

    Args:
      case: what is searched.
      seed: of the population, the data and the base.
      model: checkpoint folder, for a language model.
      block_size: experts per vmap.
      cold: whether to measure with compiling, too.
      once: run nothing again and leave the smaller budget out; seconds are what they are then.

    Returns:
      JSON values: for every way `found`, how many of the true best K it kept; `as_good`, how many
      of those that it kept score at least as the true K-th on all items, which differs from
      `found` by ties; `lost`, the mean score on all items of the true best K minus that of those
      kept; `share` of the N·B outcomes; `rounds`; `guarantee`; `seconds` and
      `cold_seconds` (or None), each in all and by stage.
    """
    for rule in WAYS.values():
        if isinstance(rule, halving.Halving):  # a budget that does not pay is said at once
            rule.schedule(case.num, case.train_items, case.k)
    with tempfile.TemporaryDirectory() as cache:
        module = registry.module(case.task)
        given = {"model": model} if case.task == "stories" else {}
        options = module.Options(
            num=case.num,
            k=(case.k,),
            train_items=case.train_items,
            test_items=case.test_items,
            seed=seed,
            cache=cache,
            **given,
        ).resolved()
        task = module.build(options)
    try:
        ways, full = {}, None
        for name, rule in WAYS.items():
            if once and name == SMALLER:
                continue
            row, result = _one_way(task, options, case, rule, block_size, cold, once)
            full = full or result
            ways[name] = row | _judge(full, result, case.k)
    finally:
        if task.close is not None:
            task.close()
    return {"task": case.task, "seed": seed, "ways": ways}


def _one_way(
    task: task.Task,
    options: Any,
    case: Case,
    rule: racing.Rule | None,
    block_size: int | str,
    cold: bool,
    once: bool,
) -> tuple[dict[str, Any], pipeline.Result]:
    experts = population(
        jax.random.key(options.seed, impl=options.prng),
        options.num,
        options.sigma,
        noise=Noise(options.noise, options.where, options.scale),
    )
    about = {"task": task.name, "model": task.model, "options": dataclasses.asdict(options)}
    problem = task.problem
    placement = place(problem.params, block_size=block_size)
    settings = pipeline.Settings((case.k,), placement, rule=rule)
    if cold:
        kept._KEPT.clear()
        jax.clear_caches()
    programs = set(kept._KEPT)
    first, result = _timed(problem, experts, settings, about)
    compiled = cold or not set(kept._KEPT) <= programs
    warm = first
    if compiled and not once:
        warm, result = _timed(problem, experts, settings, about)
    row = {"seconds": warm, "cold_seconds": first if cold else None}
    return row | {"block_size": result.table["provenance"]["block_size"]}, result


def _timed(
    problem: Any, experts: Any, settings: pipeline.Settings, about: Mapping[str, Any]
) -> tuple[dict[str, float], pipeline.Result]:
    """Seconds of a whole search, in all and by stage."""
    began = time.perf_counter()
    result = pipeline.execute(problem, experts, settings, about)
    total, timing = time.perf_counter() - began, result.table["timing"]
    stages = {name: timing[f"{name}_s"] for name in ("compile", "score", "ensemble")}
    return {"total": total, **stages}, result


def _judge(full: pipeline.Result, result: pipeline.Result, k: int) -> dict[str, Any]:
    best, kept = (np.asarray(x.experts.ids) for x in (full, result))
    values = full.scores.values
    selection = result.table.get("selection", {"share": 1.0, "rounds": [], "guarantee": None})
    return {
        "found": len(set(best.tolist()) & set(kept.tolist())),
        "as_good": int((values[kept] >= np.sort(values)[::-1][k - 1]).sum()),
        "lost": float(values[best].mean(dtype=np.float64) - values[kept].mean(dtype=np.float64)),
        "share": selection["share"],
        "rounds": selection["rounds"],
        "guarantee": selection["guarantee"],
        "best_test": result.table["best"]["test"],
        "ensemble_test": result.table["ensemble"][0]["test"],
    }
