"""Search against Adam at equal FLOPs, from the mixture's base, judged beyond what was trained.

Shapes: N experts, K kept, D training and B test sequences, T steps of the longest horizon.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thicket_jax as tj
from experiments.needle_or_thicket import adam, bases, flops
from experiments.needle_or_thicket.roll_outs import everyone
from experiments.needle_or_thicket.size import PAPER_SIGMA, Size
from experiments.needle_or_thicket.verdict import CEILING, FLOOR
from thicket_jax.analysis.intervals import paired_difference
from thicket_jax.tasks.signals.model import roll_out

_BINS = 10  # steps of a roll-out that are one point of a curve
COUNTED = ", rates counted"


def measure(
    target: str, seed: int, size: Size, cache: str, block_size: int | str = "auto"
) -> dict[str, Any]:
    """Compares base, best expert, ensemble and Adam on one target.

    Adam tries every learning rate at the search's whole budget, and the one with the least error
    of its roll-outs on the training sequences is kept: the grid is not counted. Since the rate is
    constant, a run that is stopped early is a run of a smaller budget: of those stopped when all
    together have cost what the search did, the best is kept too (`..., rates counted`).

    Returns:
      JSON values. `models`: for each its `flops`, how many forward passes a prediction takes,
      `errors` (mean over sequences and steps, to each horizon), `geometric` (geometric mean over
      sequences) and `curve`, the median squared error over sequences in bins of ten steps.
      `comparisons` as in `verdict.judge_tuning`.
    """
    began = time.perf_counter()
    task = bases.start("mixture", target, seed, size, cache)
    test = bases.long_test(target, seed, size)
    experts = tj.population(jax.random.key(seed), size.num, PAPER_SIGMA["mixture"])
    scores = tj.score(
        task.problem.score_fn,
        task.problem.params,
        experts,
        task.problem.train,
        block_size=block_size,
    )
    kept = tj.top_k(experts, scores, size.k)
    answers = tj.ensemble(
        roll_out, task.problem.params, kept, combine=everyone, block_size=block_size
    )(test)
    searched = time.perf_counter() - began
    parameters = sum(leaf.size for leaf in jax.tree.leaves(task.problem.params))
    tokens = task.problem.train["future"].shape[1]
    budget = flops.search(size.num, size.train_items, parameters, tokens)
    tried = _adams(task.problem.params, task.problem.train, seed, size, budget, parameters, tokens)
    outputs = {
        "base": (_roll(task.problem.params, test), 0, 1),
        "best expert": (answers[0], budget, 1),
        f"ensemble of {size.k}": (np.asarray(tj.mean(answers)), budget, size.k),
    }
    chosen = {}
    for name, candidates in tried.items():
        rate, params, cost, _ = min(candidates, key=lambda c: (c[3], c[0]))
        outputs[name] = (_roll(params, test), cost, 1)
        chosen[name] = {
            "rate": rate,
            "train": [{"rate": c[0], "error": _finite(c[3])} for c in candidates],
        }
    truth = np.asarray(test["future"], np.float64)
    squared = {name: _squared(values[0], truth) for name, values in outputs.items()}
    return {
        "target": target,
        "seed": seed,
        "budget": budget,
        "parameters": parameters,
        "models": {
            name: {
                "flops": cost,
                "forward_passes": passes,
                **_summary(squared[name], size.horizons),
                **chosen.get(name, {}),
            }
            for name, (_, cost, passes) in outputs.items()
        },
        "comparisons": _compare(squared, f"ensemble of {size.k}", size.horizons),
        "seconds": {
            "search": searched,
            "adam": time.perf_counter() - began - searched,
        },
    }


def _adams(
    params: Any,
    train: Any,
    seed: int,
    size: Size,
    budget: int,
    parameters: int,
    tokens: int,
) -> dict[str, list[tuple[float, Any, int, float]]]:
    """Name → candidates of (rate, parameters, FLOPs of all that were needed, training error).

    The kinds are put on different devices where there are two, so that they train side by side.
    """
    parts = len(size.learning_rates)
    steps = flops.steps_within(budget, size.batch, parameters, tokens, parts)
    order = adam.orders(seed, size.train_items, size.batch, steps)
    thirds = np.split(order, parts)
    points = jnp.concatenate([train["context"], train["future"]], 1)
    found: dict[str, list[Any]] = {}
    for kind, device in zip(adam.KINDS, (jax.devices()[0], jax.devices()[-1]), strict=True):
        begin = jax.device_put((params, adam.begin(params)), device)
        sequences = jax.device_put(points, device)
        for rate in size.learning_rates:
            ends, (theta, state) = [], begin
            for rows in thirds:
                theta, state = adam.train(theta, state, sequences, rows, np.float32(rate), kind)
                ends.append(theta)
            cost = flops.training(steps, size.batch, parameters, tokens)
            found.setdefault(f"Adam, {kind}", []).append((rate, ends[-1], cost))
            # All rates together, each for a part of the steps, have cost as much as one for all.
            found.setdefault(f"Adam, {kind}{COUNTED}", []).append((rate, ends[0], cost))
    return {
        name: [(rate, theta, cost, _train_error(theta, train)) for rate, theta, cost in candidates]
        for name, candidates in found.items()
    }


def _train_error(params: Any, train: Any) -> float:
    """Mean squared error of the roll-outs on the training sequences; infinite if not a number."""
    squared = _squared(_roll(params, train), np.asarray(train["future"], np.float64))
    return float(squared.mean())


_roll_out = jax.jit(roll_out)


def _roll(params: Any, batch: Any) -> np.ndarray:
    return np.asarray(_roll_out(jax.device_get(params), batch))


def _squared(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared errors float64 [B, T]; infinite where a roll-out is no number any more."""
    with np.errstate(over="ignore", invalid="ignore"):
        squared = (np.asarray(values, np.float64) - truth) ** 2
    return np.where(np.isfinite(squared), squared, np.inf)


def _logarithms(squared: np.ndarray, horizon: int) -> np.ndarray:
    """log₁₀ of each sequence's error to a horizon [B], held within FLOOR and CEILING."""
    return np.log10(np.clip(squared[:, :horizon].mean(1), FLOOR, CEILING))


def _summary(squared: np.ndarray, horizons: tuple[int, ...]) -> dict[str, Any]:
    T = squared.shape[1] // _BINS * _BINS
    bins = squared[:, :T].reshape(len(squared), -1, _BINS).mean(2)
    return {
        "errors": [_finite(squared[:, :h].mean()) for h in horizons],
        "geometric": [float(10 ** _logarithms(squared, h).mean()) for h in horizons],
        "curve": [_finite(float(f"{x:.4g}")) for x in np.median(bins, 0)],
    }


def _compare(
    squared: dict[str, np.ndarray], own: str, horizons: tuple[int, ...]
) -> list[dict[str, Any]]:
    rows = []
    for name in squared:
        if name == own:
            continue
        for horizon in horizons:
            ours, theirs = (_logarithms(squared[x], horizon) for x in (own, name))
            ratio, interval = paired_difference(ours, theirs)
            rows.append(
                {
                    "opponent": name,
                    "horizon": horizon,
                    "log_ratio": ratio,
                    "ci95": list(interval),
                }
            )
    return rows


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
