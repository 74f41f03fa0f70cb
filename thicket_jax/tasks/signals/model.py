"""The model of the 1-D experiment: an MLP, its training on the next value, and its roll-out.

Parameters are a plain dict of arrays, `layer_<i>` → `kernel` [in, out] and `bias` [out]: what is
perturbed needs no module. Shapes: B sequences, 10 points of context, T steps of roll-out.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from thicket_jax.errors import check_choice
from thicket_jax.tasks.signals.families import SAMPLED, family_batch

CONTEXT = 10
WIDTHS = (CONTEXT, 128, 128, 128, 128, 1)
INITIALISATIONS = {
    "xavier": jax.nn.initializers.glorot_uniform(),
    "kaiming": jax.nn.initializers.he_normal(),
    "orthogonal": jax.nn.initializers.orthogonal(),
}
ITERATIONS, BATCH, LEARNING_RATE = 1000, 256, 1e-3

Params = dict[str, dict[str, jax.Array]]


def initialise(key: jax.Array, law: str) -> Params:
    """Returns untrained parameters: kernels [in, out] by the law, biases zero, float32.

    Args:
      key: typed PRNG key; folded, not consumed.
      law: `xavier` (uniform, variance 2 / (in + out)), `kaiming` (normal, variance 2 / in) or
        `orthogonal` (orthonormal rows or columns, whichever are fewer).

    Raises:
      ArgumentError: the law is unknown.
    """
    check_choice("initialisation", law, INITIALISATIONS)
    return {
        f"layer_{index}": {
            "kernel": INITIALISATIONS[law](jax.random.fold_in(key, index), shape, jnp.float32),
            "bias": jnp.zeros(shape[1], jnp.float32),
        }
        for index, shape in enumerate(itertools.pairwise(WIDTHS))
    }


def pretrain(
    key: jax.Array,
    family: str,
    iterations: int = ITERATIONS,
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
) -> tuple[Params, jax.Array]:
    """Trains the MLP with Adam on the next value of fresh sequences, all in one compiled loop.

    The sequences of every iteration are drawn on the device, inside the loop; no cache is used.

    Args:
      key: typed PRNG key of the initialisation (Xavier) and of the data; folded, not consumed.
      family: a family or `mixed`.
      iterations: optimiser steps.
      batch: sequences per step, never the same twice.
      learning_rate: of Adam.

    Returns:
      (params, losses): θ, and float32 [iterations], the mean squared error before each step.

    Raises:
      ArgumentError: the family is unknown.
    """
    check_choice("pretraining family", family, SAMPLED)
    return _pretrain(key, family, iterations, batch, learning_rate)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _pretrain(
    key: jax.Array, family: str, iterations: int, batch: int, learning_rate: float
) -> tuple[Params, jax.Array]:
    optimiser = optax.adam(learning_rate)
    params = initialise(jax.random.fold_in(key, 0), "xavier")
    data_key = jax.random.fold_in(key, 1)

    def loss_fn(params: Params, points: jax.Array) -> jax.Array:
        return jnp.mean((next_value(params, points[:, :-1]) - points[:, -1]) ** 2)

    def step(carry: tuple[Params, Any], iteration: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        points = family_batch(family, jax.random.fold_in(data_key, iteration), batch, CONTEXT + 1)
        loss, gradient = jax.value_and_grad(loss_fn)(params, points)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.lax.scan(
        step, (params, optimiser.init(params)), jnp.arange(iterations)
    )
    return params, losses


def next_value(params: Params, window: jax.Array) -> jax.Array:
    """Returns the model's next value [B] after a window [B, 10], in the dtype of its inputs."""
    hidden = window
    for index in range(len(WIDTHS) - 1):
        layer = params[f"layer_{index}"]
        hidden = hidden @ layer["kernel"] + layer["bias"][None]
        if index < len(WIDTHS) - 2:
            hidden = jax.nn.relu(hidden)
    return hidden[:, 0]


def roll_out(params: Params, batch: dict[str, jax.Array], dtype: Any = jnp.float32) -> jax.Array:
    """Continues each context with the model's own outputs: float32 [B, T].

    Parameters and activations are cast to `dtype` for the matrix products; the window that is fed
    back stays float32.

    Args:
      params: θ, float32.
      batch: `context` float32 [B, 10]; `future` [B, T], of which only T is used.
      dtype: in which the model computes.
    """
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def step(window: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return _advance(params, window, dtype)

    length = batch["future"].shape[1]
    return jax.lax.scan(step, batch["context"], None, length=length)[1].T


def roll_out_score(
    params: Params, batch: dict[str, jax.Array], dtype: Any = jnp.float32
) -> jax.Array:
    """Returns minus the mean squared error of each sequence's roll-out: float32 [B].

    As `roll_out`, with the errors summed as it goes, so that no roll-out is kept in memory.

    Args:
      params: θ, float32.
      batch: `context` float32 [B, 10] and `future` float32 [B, T].
      dtype: in which the model computes; errors are float32.
    """
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    context, future = batch["context"], batch["future"]

    def step(carry: tuple[jax.Array, jax.Array], truth: jax.Array) -> tuple[Any, None]:
        window, total = carry
        window, value = _advance(params, window, dtype)
        return (window, total + (value - truth) ** 2), None

    start = (context, jnp.zeros(len(context), jnp.float32))
    (_, total), _ = jax.lax.scan(step, start, future.T)
    return -total / future.shape[1]


def _advance(params: Params, window: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """One step of a roll-out: the window moved on by the model's next value, and that value."""
    value = next_value(params, window.astype(dtype)).astype(jnp.float32)
    return jnp.concatenate([window[:, 1:], value[:, None]], 1), value
