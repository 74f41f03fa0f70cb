"""Logits → the next token of every row: greedy, or drawn from keys that are the row's own.

Shapes: R rows, V tokens of the vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp


def next_tokens(logits: jax.Array, batch: Any, draw: jax.Array, step: jax.Array) -> jax.Array:
    """Chooses one token a row from logits float32 [R, V]; int32 [R].

    Args:
      logits: float32 [R, V].
      batch: `row` int32 [R], `key`, `temperature` and `top_p`; see `decode.Batch`.
      draw: int32 [], the number of the draw.
      step: int32 [] or [R], how many tokens of its own a row has.
    """

    def greedy(_: None) -> jax.Array:
        return first_largest(logits)

    def sampled(_: None) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(batch["key"]), draw)
        rows = batch["row"], jnp.broadcast_to(step, batch["row"].shape)
        keys = jax.vmap(lambda row, at: jax.random.fold_in(jax.random.fold_in(key, row), at))(*rows)
        scaled = logits / jnp.maximum(batch["temperature"], 1e-6)
        scaled = jax.lax.cond(
            batch["top_p"] < 1, lambda: cut_to(scaled, batch["top_p"]), lambda: scaled
        )
        return jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)

    return jax.lax.cond(batch["temperature"] > 0, sampled, greedy, None)


def first_largest(logits: jax.Array) -> jax.Array:
    """The argmax as two plain reductions, which a CPU runs faster; int32 [R]."""
    V = logits.shape[-1]
    places = jnp.arange(V, dtype=jnp.int32)
    at_top = logits == logits.max(-1, keepdims=True)
    return jnp.minimum(jnp.where(at_top, places, V).min(-1), V - 1)


def cut_to(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Sets to −inf what is outside the smallest set of probability top_p; the best token stays."""
    ordered = jnp.flip(jnp.sort(logits, -1), -1)
    share = jnp.cumsum(jax.nn.softmax(ordered, -1), -1)
    before = jnp.roll(share, 1, -1).at[..., 0].set(0)
    kept = (before < top_p).sum(-1, keepdims=True)
    lowest = jnp.take_along_axis(ordered, kept - 1, -1)
    return jnp.where(logits < lowest, -jnp.inf, logits)
