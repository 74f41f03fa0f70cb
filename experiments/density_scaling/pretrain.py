"""Pretraining of one decoder on the mixture, stopped where its own learning curve is as flat.

Sizes learn at different speeds, so equal steps would compare models at different stages. Each is
trained at a constant rate until a doubling of its steps no longer takes a third off its loss, then
the rate falls to zero; `Rule` says how many steps that may take.
"""

import concurrent.futures
import dataclasses
import functools
import pathlib
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.density_scaling import decoder
from experiments.density_scaling.dataset import VERSION, Lines
from thicket_jax.tasks import base_model

RECIPE = "1"  # another one trains other models


@dataclasses.dataclass(frozen=True)
class Rule:
    """How long a decoder is trained, and on what.

    Attributes:
      batch: lines per step.
      least, most: steps at the constant rate.
      round: steps between two looks at the loss.
      flat: stop where the loss is at least this share of the loss at half as many steps.
      anneal: share of the steps so far in which the rate then falls to zero.
      lines: training lines of the data set.
    """

    batch: int = 64
    least: int = 1500
    most: int = 3000
    round: int = 250
    flat: float = 2 / 3
    anneal: float = 0.25
    lines: int = 2**18


def rate(width: int) -> float:
    """Returns Adam's learning rate: as wider a model, as much smaller its steps."""
    return 8e-3 * 16 / width


def pretrain_all(
    jobs: Sequence[tuple[int, int]],
    rule: Rule,
    lines: Lines,
    cache: pathlib.Path,
    say: Callable[[str], None],
) -> dict[tuple[int, int], dict[str, Any]]:
    """Trains all (width, seed) that are not in the cache, one on each device, the widest first.

    Returns the learning curves.
    """
    free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
    for device in jax.local_devices():
        free.put(device)

    def train(job: tuple[int, int]) -> dict[str, Any]:
        device = free.get()
        try:
            with jax.default_device(device):
                return pretrained(*job, rule, lines, cache, say)[1]
        finally:
            free.put(device)

    ordered = sorted(jobs, key=lambda job: (-job[0], job[1]))
    with concurrent.futures.ThreadPoolExecutor(len(jax.local_devices())) as pool:
        return dict(zip(ordered, pool.map(train, ordered), strict=True))


def pretrained(
    width: int, seed: int, rule: Rule, lines: Lines, cache: pathlib.Path, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """Returns a trained decoder's parameters, an NNX state, and its learning curve.

    Kept in `cache` with Orbax, by everything that changes them.
    """
    fingerprint = {
        "model": "density_scaling",
        "recipe": RECIPE,
        "data": VERSION,
        "width": width,
        "seed": seed,
        "rate": rate(width),
        **dataclasses.asdict(rule),
    }

    def make() -> dict[str, Any]:
        params, curve = _train(width, seed, rule, lines, say)
        leaves = {f"{i:03d}": x for i, x in enumerate(jax.tree.leaves(params))}
        return {"leaves": leaves, "curve": {k: np.asarray(v) for k, v in curve.items()}}

    found = base_model.cached(cache, f"density-scaling-{width}-{seed}", fingerprint, make)
    structure = jax.tree.structure(decoder.initialise(width, seed))
    params = jax.tree.unflatten(structure, list(dict(sorted(found["leaves"].items())).values()))
    curve = {name: np.asarray(x).tolist() for name, x in found["curve"].items()}
    return params, curve


def _train(
    width: int, seed: int, rule: Rule, lines: Lines, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    began = time.perf_counter()
    run = _steps(width, rule.batch, rule.round)
    data = (jnp.asarray(lines["tokens"]), jnp.asarray(lines["answer"]))
    params = decoder.initialise(width, seed)
    carry = (params, _adam().init(params))
    key = jax.random.fold_in(jax.random.key(seed), width)
    means: list[float] = []
    while True:
        done = len(means) * rule.round
        warm = np.minimum(1, (done + 1 + np.arange(rule.round)) / 100)
        carry, losses = run(carry, data, key, done, (rate(width) * warm).astype(np.float32))
        means.append(float(np.asarray(losses)[-rule.round // 2 :].mean()))
        say(f"width {width} seed {seed}: {done + rule.round} steps, loss {means[-1]:.4f}")
        if stage(means, rule) != "go on":
            break
    steps = len(means) * rule.round
    rounds = max(1, round(rule.anneal * steps / rule.round))
    falling = 1 - (np.arange(rounds * rule.round) + 1) / (rounds * rule.round)
    for n in range(rounds):
        part = falling[n * rule.round : (n + 1) * rule.round].astype(np.float32)
        carry, losses = run(carry, data, key, steps + n * rule.round, rate(width) * part)
    last = float(np.asarray(losses)[-rule.round // 2 :].mean())
    curve = {
        "losses": means,
        "final": last,
        "steps": steps + rounds * rule.round,
        "flatness": flatness(means),
        "capped": stage(means, rule) == "cap",
        "seconds": time.perf_counter() - began,
    }
    return carry[0], curve


def flatness(means: list[float]) -> float:
    """Returns the last loss over that of half as many rounds; of an odd number, interpolated."""
    middle = len(means) / 2 - 1
    return means[-1] / float(np.interp(middle, np.arange(len(means)), means))


def stage(means: list[float], rule: Rule) -> str:
    """Returns `go on`, `flat` or `cap`, from the mean losses of the rounds so far."""
    steps = len(means) * rule.round
    if steps >= rule.least and flatness(means) >= rule.flat:
        return "flat"
    return "cap" if steps >= rule.most else "go on"


@functools.cache
def _adam() -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b1=0.9, b2=0.98),
    )


@functools.cache
def _steps(width: int, batch: int, count: int) -> Callable[..., Any]:
    """A compiled round of training: `count` steps, their rates given."""

    def loss(params: Any, tokens: jax.Array, answer: jax.Array) -> jax.Array:
        found = decoder.losses(width, params, tokens, answer)
        return found.sum() / answer.sum().astype(jnp.float32)

    def step(carry: Any, drawn: tuple[jax.Array, jax.Array], data: Any, key: jax.Array) -> Any:
        params, state = carry
        number, rate = drawn
        rows = jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, len(data[0]))
        value, gradient = jax.value_and_grad(loss)(params, data[0][rows], data[1][rows])
        state[1].hyperparams["learning_rate"] = rate
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, state = _adam().update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(carry: Any, data: Any, key: jax.Array, done: Any, rates: jax.Array) -> Any:
        numbers = jnp.arange(count, dtype=jnp.int32) + jnp.int32(done)
        return jax.lax.scan(lambda c, x: step(c, x, data, key), carry, (numbers, rates))

    return run
