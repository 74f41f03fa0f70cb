"""One run of the 1-D task, through the pipeline that the command line uses → one JSON record."""

import dataclasses
import tempfile
import time
from typing import Any

import jax
import numpy as np

from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import population
from thicket_jax.mapping.placement import place
from thicket_jax.search import pipeline
from thicket_jax.tasks.signals import task as signals

PAIRS = (
    "xavier:one_line",
    "xavier:one_squarewave",
    "xavier:one_sinusoid",
    "mixed:one_line",
    "mixed:one_squarewave",
    "mixed:one_sinusoid",
    "mixed:line",
    "mixed:sinusoid",
    "mixed:squarewave",
    "line:one_line",
    "line:line",
    "sinusoid:sinusoid",
    "squarewave:squarewave",
    "line:one_squarewave",
    "line:one_sinusoid",
    "sinusoid:squarewave",
)
"""PRETRAIN:TARGET, grouped by the claim that they bear on (see verdict.py)."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How large every run is; part of what identifies a result.

    Attributes:
      num: experts, N.
      k: of which so many are kept, K.
      train_items: sequences that score the experts.
      test_items: sequences on which base, best and ensemble are compared.
    """

    num: int = 1000
    k: int = 10
    train_items: int = 1024
    test_items: int = 256


def measure(pair: str, seed: int, size: Size, block_size: int | str = "auto") -> dict[str, Any]:
    """Runs one pair with one seed; the base is trained anew, so that every time is whole.

    Args:
      pair: `PRETRAIN:TARGET`, names of the task's own.
      seed: of the population, the data and the base.
      size: how large.
      block_size: experts per vmap.

    Returns:
      JSON values. Errors are mean squared errors of the roll-out (lower is better). `share_gt` is
      the share of the N experts with a lower training error than the base, `share_half` of those
      with at most half of it. `target_variance` is the variance of the test targets' values.
    """
    pretrain, _, target = pair.partition(":")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        options = signals.Options(
            pretrain=pretrain, target=target, seed=seed, cache=cache, **_counts(size)
        ).resolved()
        task = signals.build(options)
    setup = time.perf_counter() - began
    experts = population(
        jax.random.key(seed, impl=options.prng),
        options.num,
        options.sigma,
        noise=Noise(options.noise, options.where, options.scale),
    )
    problem = task.problem
    placement = place(problem.params, block_size=block_size)
    settings = pipeline.Settings(options.k, placement, setup_seconds=setup)
    about = {
        "task": task.name,
        "model": task.model,
        "options": dataclasses.asdict(options),
        "task_provenance": dict(task.provenance),
    }
    result = pipeline.execute(problem, experts, settings, about)
    table = result.table
    base, errors = table["base"]["train"], -np.asarray(result.scores.values, np.float64)
    (density,) = table["density"]
    timing = table["timing"]
    return {
        "pair": pair,
        "seed": seed,
        "sigma": list(options.sigma),
        "base": table["base"],
        "best": table["best"],
        "ensemble": table["ensemble"],
        "share_ge": density["fraction_ge"],
        "share_gt": density["fraction_gt"],
        "share_half": float(np.mean(errors <= base / 2)),
        "failed": table["failed"],
        "target_variance": float(np.var(np.asarray(task.problem.targets, np.float64))),
        "seconds": {
            "setup": setup,
            "pretrain": task.provenance.get("seconds", 0.0),
            "compile": timing["compile_s"],
            "score": timing["score_s"],
            "ensemble": timing["ensemble_s"],
            "total": time.perf_counter() - began,
        },
        "experts_per_s": timing["experts_per_s"],
        "block_size": table["provenance"]["block_size"],
    }


def _counts(size: Size) -> dict[str, Any]:
    return {
        "num": size.num,
        "k": (size.k,),
        "train_items": size.train_items,
        "test_items": size.test_items,
    }
