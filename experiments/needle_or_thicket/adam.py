"""Adam from a base on the target's training sequences: on the next value, or through roll-outs.

Shapes: D sequences of C + T points, B in a step. Both kinds predict T values of each sequence of
a batch in every step: the first from the true windows, the second from its own outputs, with the
gradient taken through all T steps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from thicket_jax.tasks.signals.model import CONTEXT, next_value, roll_out_score

CLIP = 1.0  # of the gradient's norm: a roll-out that diverges has gradients that do
KINDS = ("next value", "roll-out")


def orders(seed: int, sequences: int, batch: int, steps: int) -> np.ndarray:
    """Returns which sequences each step sees, int32 [steps, B]: a fresh permutation an epoch."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // sequences)
    order = np.concatenate([rng.permutation(sequences) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)


def loss(params: Any, points: jax.Array, kind: str) -> jax.Array:
    """Returns the mean squared error of the T predicted values of each of points [B, C + T]."""
    if kind == "roll-out":
        batch = {"context": points[:, :CONTEXT], "future": points[:, CONTEXT:]}
        return -roll_out_score(params, batch).mean()
    length = points.shape[1] - CONTEXT
    windows = jnp.stack([points[:, i : i + length] for i in range(CONTEXT)], -1)
    truth = points[:, CONTEXT:]
    found = next_value(params, windows.reshape(-1, CONTEXT)).reshape(truth.shape)
    return jnp.mean((found - truth) ** 2)


@functools.partial(jax.jit, static_argnames="kind")
def train(
    params: Any, state: Any, points: jax.Array, order: jax.Array, rate: jax.Array, kind: str
) -> tuple[Any, Any]:
    """Takes one step for each row of `order`; returns (params, state of the optimiser).

    Args:
      params: θ.
      state: `begin(params)`, or what an earlier call returned.
      points: float32 [D, C + T].
      order: int32 [steps, B].
      rate: float32 [], the learning rate.
      kind: one of `KINDS`.
    """

    def step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        gradient = jax.grad(loss)(params, points[rows], kind)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, state = _rule().update(gradient, state, params)
        updates = jax.tree.map(lambda u: -rate * u, updates)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), order)[0]


def begin(params: Any) -> Any:
    """Returns Adam's state before the first step."""
    return _rule().init(params)


def _rule() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())
