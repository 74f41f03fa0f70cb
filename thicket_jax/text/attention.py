"""Attention of queries to keys and values in a cache, and the rotation that gives them places.

Shapes: B rows, S new tokens, T cache slots, H_kv key-value heads, G query heads a key-value head, d
head size.
"""

from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.text.cache import on_cpu

_SCORES = 2**26  # bytes of attention scores that are held at once, if there are more queries
_MASKED = -1e30  # float32; finite, so that a row that sees nothing does not become NaN


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """Softmax attention as matrix products; scores and weights in float32.

    Queries go through in chunks, so that scores [B, H, S, T] of a long prompt are never held.

    Args:
      queries: [B, S, H_kv, G, d].
      keys, values: [B, H_kv, d, T].
      mask: bool [B, S, T].
      scale: of the scores.
      softcap: what the scores' size stays below, by a hyperbolic tangent; None: they are free.

    Returns:
      [B, S, H_kv, G, d], in the values' dtype.
    """

    def some(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        queries, mask = part
        scores = jnp.einsum("bshgd,bhdt->bhgst", queries, keys, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None], capped(scores * scale, softcap), _MASKED)
        weights = jax.nn.softmax(scores, -1).astype(values.dtype)
        return jnp.einsum("bhgst,bhdt->bshgd", weights, values)

    if on_cpu():  # which in some loops has no product of 16 bits in float32
        queries, keys = queries.astype(jnp.float32), keys.astype(jnp.float32)
    B, S, H, G, _ = queries.shape
    held = 4 * B * H * G * S * keys.shape[-1]
    chunks = next(n for n in range(1, S + 1) if S % n == 0 and (held <= n * _SCORES or n == S))
    if chunks == 1:
        return some((queries, mask))

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, chunks, S // chunks, *x.shape[2:]), 1, 0)

    out = jax.lax.map(some, (split(queries), split(mask)))
    return jnp.moveaxis(out, 0, 1).reshape(queries.shape)


def attend_step(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """The same for one new token, S = 1, without its axis: plain products for every head."""
    scores = jnp.einsum("bhgd,bhdt->bhgt", queries[:, 0], keys, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, 0, None, None], capped(scores * scale, softcap), _MASKED)
    weights = jax.nn.softmax(scores, -1).astype(values.dtype)
    return jnp.einsum("bhgt,bhdt->bhgd", weights, values)[:, None]


def capped(x: jax.Array, cap: float | None) -> jax.Array:
    """Keeps numbers between −cap and cap, by a hyperbolic tangent; None leaves them as they are."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def rotate(x: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the two halves of every head by its position: rotary embedding, in float32.

    Args:
      x: [B, S, H, d].
      table: cosines and sines, float32 [B, S, r]; what is behind the first r of a head stays.
    """
    cosine, sine = (part[:, :, None] for part in table)
    r = cosine.shape[-1]
    wide = x[..., :r].astype(jnp.float32)
    first, second = jnp.split(wide, 2, -1)
    turned = jnp.concatenate([-second, first], -1)
    out = (wide * cosine + turned * sine).astype(x.dtype)
    return out if r == x.shape[-1] else jnp.concatenate([out, x[..., r:]], -1)


def seen(mask: jax.Array, window: Any, end: Any) -> jax.Array:
    """The slots that each token sees through a window, int or int32 [], behind it; None: all."""
    if window is None:
        return mask
    S, T = mask.shape[-2:]
    distance = (jnp.arange(S, dtype=jnp.int32) + end)[:, None] - jnp.arange(T, dtype=jnp.int32)[
        None
    ]
    return mask & (distance < window)[None]
