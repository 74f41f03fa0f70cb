"""Where the time of a roll-out goes: the same program with one part after the other left out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import timing
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.population import Population
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import devices
from thicket_jax.tasks.signals import model as signal_model

WHOLE, GIVEN, LINEAR, PRODUCTS = (
    "whole",
    "without drawing and adding noise",
    "without noise, bias, ReLU",
    "matrix products alone",
)
PARTS = ("noise", "bias and ReLU", "window, conversions and error", "matrix products")


def measure(
    params: Any, batch: dict[str, Any], experts: Population, dtype: Any, block: int, rounds: int
) -> dict[str, Any]:
    """Times four programs in turn, each without a part of the one before.

    Args:
      params: θ of the MLP.
      batch: the sequences.
      experts: give the key, the law, the sigma and about how many to score: whole blocks, at least
        one on every device.
      dtype: in which the model computes.
      block: experts side by side.
      rounds: of the alternation.

    Returns:
      `seconds`, per expert with all samples, of every program; `parts`, the differences of their
      medians as shares of the whole: what is left out last is the matrix products. A part may
      overlap with another on the processor, so that a small one can come out below zero.
    """
    mapper = devices.make_mapper()
    D = mapper.count
    blocks = max(1, len(experts) // (D * block))
    num = D * blocks * block
    scales = leaf_scales(params, make_plan(params, experts.noise))
    ids = np.arange(num, dtype=np.int32).reshape(D, blocks, block)
    sigma = np.float32(experts.sigmas[0])

    def perturbed(key: Any, expert_id: Any, params: Any) -> Any:
        one = Population(key, expert_id, sigma, np.float32(1), experts.noise)
        return apply_noise(params, one, scales)

    over = jax.vmap(perturbed, in_axes=(None, 0, None))
    shared = mapper.replicate((params, batch, experts.key))
    placed = mapper.split(ids)
    make = mapper.compile(
        lambda params, _, key, ids: jax.lax.map(lambda row: over(key, row, params), ids),
        shared,
        (placed,),
    )
    given = devices.launch(make, *shared, placed)

    def whole(params: Any, batch: Any, key: Any, ids: Any) -> Any:
        def run(row: Any) -> Any:
            def one(expert_id: Any) -> Any:
                own = perturbed(key, expert_id, params)
                return signal_model.roll_out_score(own, batch, dtype)

            return jax.vmap(one)(row)

        return jax.lax.map(run, ids)

    def on_given(score: Callable[..., Any]) -> Callable[..., Any]:
        def program(_: Any, batch: Any, key: Any, stacks: Any) -> Any:
            return jax.lax.map(jax.vmap(lambda own: score(own, batch, dtype)), stacks)

        return program

    programs = {
        WHOLE: (whole, placed),
        GIVEN: (on_given(signal_model.roll_out_score), given),
        LINEAR: (on_given(_linear_score), given),
        PRODUCTS: (on_given(_products), given),
    }
    contenders = {
        name: _timed(mapper.compile(program, shared, (split,)), (*shared, split))
        for name, (program, split) in programs.items()
    }
    for contender in contenders.values():  # once, untimed
        contender()
    samples = timing.alternate(contenders, rounds)
    found = {name: timing.summary([x / num for x in values]) for name, values in samples.items()}
    medians = [row["median"] for row in found.values()]
    left = [a - b for a, b in zip(medians, [*medians[1:], 0.0], strict=True)]
    shares = [value / medians[0] for value in left]
    return {"block": block, "seconds": found, "parts": dict(zip(PARTS, shares, strict=True))}


def _timed(program: Any, arguments: tuple) -> Callable[[], float]:
    return lambda: timing.seconds(lambda: devices.launch(program, *arguments))


def _kernels(params: Any, dtype: Any) -> list[jax.Array]:
    return [layer["kernel"].astype(dtype) for layer in params.values()]


def _linear_score(params: Any, batch: dict[str, jax.Array], dtype: Any) -> jax.Array:
    """`signal_model.roll_out_score` of a model of the same kernels and nothing else."""
    kernels = _kernels(params, dtype)

    def step(carry: tuple[jax.Array, jax.Array], truth: jax.Array) -> tuple[Any, None]:
        window, total = carry
        value = _through(kernels, window.astype(dtype))[:, 0].astype(jnp.float32)
        window = jnp.concatenate([window[:, 1:], value[:, None]], 1)
        return (window, total + (value - truth) ** 2), None

    start = (batch["context"], jnp.zeros(len(batch["context"]), jnp.float32))
    (_, total), _ = jax.lax.scan(step, start, batch["future"].T)
    return -total / batch["future"].shape[1]


def _products(params: Any, batch: dict[str, jax.Array], dtype: Any) -> jax.Array:
    """The same products, the last hidden layer's first columns being the next window."""
    kernels = _kernels(params, dtype)
    context = batch["context"].astype(dtype)

    def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        hidden = _through(kernels[:-1], carry[0])
        return (hidden[:, : context.shape[1]], hidden @ kernels[-1]), None

    start = (context, jnp.zeros((len(context), 1), dtype))
    (_, value), _ = jax.lax.scan(step, start, None, length=batch["future"].shape[1])
    return value[:, 0].astype(jnp.float32)


def _through(kernels: list[jax.Array], hidden: jax.Array) -> jax.Array:
    for kernel in kernels:
        hidden = hidden @ kernel
    return hidden
