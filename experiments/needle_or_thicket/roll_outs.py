"""The paper's picture: roll-outs of base, experts and ensemble, for nine pairs of the 1-D table.

The numbers of a pair are those of `experiments/signals`, from all of its items and seeds. The
curves are made again here, from the same base, the same experts and the first few of the same
training sequences: experts are recipes, and few sequences choose nearly the same ones.
"""

import time
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.needle_or_thicket.size import Size
from thicket_jax.tasks.signals import task as signals

COLUMNS = ("no pretraining", "pretrained on the mixture", "pretrained on the target family")
PAIRS = (
    ("xavier:one_line", "mixed:one_line", "line:one_line"),
    ("xavier:one_sinusoid", "mixed:sinusoid", "sinusoid:sinusoid"),
    ("xavier:one_squarewave", "mixed:squarewave", "squarewave:squarewave"),
)
"""PRETRAIN:TARGET of `experiments/signals`, one row of the figure after the other."""


def measure(
    pair: str,
    settings: dict[str, Any],
    size: Size,
    cache: str,
    block_size: int | str = "auto",
) -> dict[str, Any]:
    """Makes the curves of one pair, seed 0, on the first test sequence.

    Args:
      pair: `PRETRAIN:TARGET`.
      settings: of the table: `num`, `k`, `train_items`, `test_items`.
      size: of which `shown` is used: sequences that choose the experts.
      cache: folder of base models.
      block_size: experts per vmap.

    Returns:
      JSON values: `truth` [70], `base` [60], `experts` [K][60] best first, `best_id`, the ids
      being those of the table's population.
    """
    began = time.perf_counter()
    pretrain, _, target = pair.partition(":")
    counts = {name: settings[name] for name in ("num", "train_items", "test_items")}
    options = signals.Options(
        pretrain=pretrain, target=target, cache=cache, k=(settings["k"],), **counts
    ).resolved()
    task = signals.build(options)
    few = jax.tree.map(lambda x: x[: size.shown], task.problem.train)
    one = jax.tree.map(lambda x: x[:1], task.problem.test)
    key = jax.random.key(options.seed, impl=options.prng)
    experts = tj.population(key, options.num, options.sigma, noise=tj.gaussian())
    scores = tj.score(
        task.problem.score_fn, task.problem.params, experts, few, block_size=block_size
    )
    kept = tj.top_k(experts, scores, settings["k"])
    answers = tj.ensemble(
        task.problem.predict_fn, task.problem.params, kept, combine=everyone, block_size=block_size
    )(one)
    truth = np.concatenate([np.asarray(one["context"][0]), np.asarray(one["future"][0])])
    base = np.asarray(jax.jit(task.problem.predict_fn)(task.problem.params, one))[0]
    return {
        "pair": pair,
        "best_id": int(kept.ids[0]),
        "truth": _short(truth),
        "base": _short(base),
        "experts": [_short(row[0]) for row in np.asarray(answers)],
        "seconds": time.perf_counter() - began,
    }


def everyone(predictions: Any) -> Any:
    """Returns the predictions of all experts [K, B, T] as they are, uncombined."""
    return predictions


def _short(values: np.ndarray) -> list[float | None]:
    """Four digits, which a picture cannot show; None where a roll-out is no number any more."""
    return [float(f"{x:.4g}") if np.isfinite(x) else None for x in values]
