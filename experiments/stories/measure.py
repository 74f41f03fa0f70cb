"""One search on `stories`, through the pipeline that the command line uses → one JSON record."""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import population
from thicket_jax.mapping.placement import place
from thicket_jax.search import pipeline
from thicket_jax.tasks.language import stories


@dataclasses.dataclass(frozen=True)
class Size:
    """How large every search is; part of what identifies a result.

    Attributes:
      num: experts, N.
      k: sizes of the ensembles.
      train_items: prompts that score the experts.
      test_items: prompts on which everything is compared.
      max_tokens: tokens of a continuation.
    """

    num: int = 512
    k: tuple[int, ...] = (1, 5, 20)
    train_items: int = 32
    test_items: int = 192
    max_tokens: int = 48


@dataclasses.dataclass(frozen=True)
class Search:
    """Which search: the noise law, its only sigma, and the seed of experts and prompts."""

    noise: str
    sigma: float
    seed: int

    @property
    def name(self) -> str:
        """A name for a folder."""
        return f"{self.noise}-sigma{self.sigma:g}-seed{self.seed}"


def measure(model: str, which: Search, size: Size, run_dir: pathlib.Path) -> dict[str, Any]:
    """Runs one search and writes its run directory.

    Args:
      model: checkpoint folder.
      which: search.
      size: how large.
      run_dir: where to; must not exist.

    Returns:
      JSON values. Everything of `base`, `best`, `ensemble`, `baselines` and `density` is as in
      the run's own results.json, accuracies from 0 to 1. `perfect` is the share of the N experts
      that are right on every train prompt: among these, selection goes by id alone.
    """
    began = time.perf_counter()
    options = stories.Options(
        model=model,
        num=size.num,
        k=size.k,
        sigma=(which.sigma,),
        noise=which.noise,
        seed=which.seed,
        train_items=size.train_items,
        test_items=size.test_items,
        max_tokens=size.max_tokens,
    ).resolved()
    task = stories.build(options)
    setup = time.perf_counter() - began
    try:
        experts = population(
            jax.random.key(options.seed, impl=options.prng),
            options.num,
            options.sigma,
            noise=Noise(options.noise, options.where, options.scale),
        )
        placement = place(task.problem.params)
        settings = pipeline.Settings(size.k, placement, run_dir=run_dir, setup_seconds=setup)
        about = {
            "task": task.name,
            "model": task.model,
            "options": dataclasses.asdict(options),
            "notes": list(task.notes),
            "task_provenance": dict(task.provenance),
        }
        result = pipeline.execute(task.problem, experts, settings, about)
    finally:
        if task.close is not None:
            task.close()
    table, scores = result.table, result.scores
    timing = table["timing"]
    (density,) = table["density"]
    return {
        **dataclasses.asdict(which),
        "model": task.model,
        "parameters": table["provenance"]["fingerprints"]["params"],
        **{name: table[name] for name in ("base", "best", "ensemble", "baselines")},
        "density": density,
        "perfect": float(np.mean(scores.values >= 1)),
        "failed": table["failed"],
        "seconds": {
            "setup": setup,
            "compile": timing["compile_s"],
            "score": timing["score_s"],
            "answer": timing["ensemble_s"],
            "total": time.perf_counter() - began,
        },
        "experts_per_s": timing["experts_per_s"],
        "tokens_per_s": float(np.nansum(scores.columns["tokens"])) / timing["score_s"],
        "block_size": table["provenance"]["block_size"],
        "sampling": task.provenance["sampling"],
    }
