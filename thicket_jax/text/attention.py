"""Attention of queries to keys and values in a cache, and the rotation that gives them places.

Shapes: B rows, S new tokens, T cache slots, H_kv key-value heads, G query heads a key-value head, d
head size, F tokens of a prefix that all rows share.

What is attended comes as a tuple: the rows' own keys [B, H_kv, d, T], and after them, where there
is a prefix, its keys [1, H_kv, d, F], which are not copied for each row; values likewise. Masks are
a tuple too: bool [B, S, T], and bool [B, S, F], or None where every token sees the whole prefix.
"""

from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.text.cache import on_cpu
from thicket_jax.text.parts import parts

Attended = tuple[jax.Array, ...]
Masks = tuple[jax.Array | None, ...]

_SCORES = 2**26  # bytes of attention scores that are held at once, if there are more queries
_MASKED = -1e30  # float32; finite, so that a row that sees nothing does not become NaN


def attend(
    queries: jax.Array,
    keys: Attended,
    values: Attended,
    masks: Masks,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """Softmax attention as matrix products; scores and weights in float32.

    Queries go through in chunks, so that scores [B, H, S, T] of a long prompt are never held.

    Args:
      queries: [B, S, H_kv, G, d].
      keys, values: see above.
      masks: see above.
      scale: of the scores.
      softcap: what the scores' size stays below, by a hyperbolic tangent; None: they are free.

    Returns:
      [B, S, H_kv, G, d], in the values' dtype.
    """

    def some(part: tuple[jax.Array, Masks]) -> jax.Array:
        queries, masks = part
        wide = [mask if mask is None else mask[:, None, None] for mask in masks]
        return _mixed("bshgd", "bhgst", queries, keys, values, wide, scale, softcap).astype(dtype)

    dtype = values[0].dtype
    if on_cpu():  # which in some loops has no product of 16 bits in float32
        queries, keys = jax.tree.map(lambda x: x.astype(jnp.float32), (queries, keys))
        if len(values) > 1:
            values = jax.tree.map(lambda x: x.astype(jnp.float32), values)
    B, S, H, G, _ = queries.shape
    held = 4 * B * H * G * S * sum(part.shape[-1] for part in keys)
    chunks = parts(S, held, _SCORES)
    if chunks == 1:
        return some((queries, masks))

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, chunks, S // chunks, *x.shape[2:]), 1, 0)

    out = jax.lax.map(some, jax.tree.map(split, (queries, masks)))
    return jnp.moveaxis(out, 0, 1).reshape(queries.shape)


def attend_step(
    queries: jax.Array,
    keys: Attended,
    values: Attended,
    masks: Masks,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """The same for one new token, S = 1, without its axis: plain products for every head."""
    wide = [mask if mask is None else mask[:, 0, None, None] for mask in masks]
    return _mixed("bhgd", "bhgt", queries[:, 0], keys, values, wide, scale, softcap)[:, None]


def _mixed(
    asked: str,
    scored: str,
    queries: jax.Array,
    keys: Attended,
    values: Attended,
    masks: Any,
    scale: float,
    softcap: float | None,
) -> jax.Array:
    """One softmax over all that is attended; `asked` and `scored` name their arrays' axes."""
    scores = []
    for source, part, mask in zip(_SOURCES, keys, masks, strict=False):
        found = jnp.einsum(
            f"{asked},{source}->{scored}",
            queries,
            part if source == "bhdt" else part[0],
            preferred_element_type=jnp.float32,
        )
        found = capped(found * scale, softcap)
        scores.append(found if mask is None else jnp.where(mask, found, _MASKED))
    dtype = values[0].dtype
    if len(values) == 1:
        weights = jax.nn.softmax(scores[0], -1).astype(dtype)
        return jnp.einsum(f"{scored},bhdt->{asked}", weights, values[0])
    weights = jax.nn.softmax(jnp.concatenate(scores, -1), -1).astype(dtype)
    both = jnp.split(weights, [keys[0].shape[-1]], -1)
    # The two parts of one sum are not rounded each on its own.
    wide = {"preferred_element_type": jnp.float32}
    out = jnp.einsum(f"{scored},bhdt->{asked}", both[0], values[0], **wide)
    out += jnp.einsum(f"{scored},hdt->{asked}", both[1], values[1][0], **wide)
    return out.astype(dtype)


_SOURCES = ("bhdt", "hdt")  # the axes of what each row has, and of what all share


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


def seen(mask: jax.Array, window: Any, distance: Any, positions: jax.Array, prefix: int) -> Masks:
    """What each token sees through a window, int or int32 [], behind it; None: all of the mask.

    Args:
      mask: bool [B, S, T], of the rows' own slots.
      window: how many tokens, with itself.
      distance: int32 [S, T], how far behind each token a slot's token is.
      positions: int32 [B, S], the tokens' places.
      prefix: length of what all rows share, F; 0: there is none.
    """
    own = mask if window is None else mask & (distance < window)[None]
    if not prefix:
        return (own,)
    behind = positions[:, :, None] - jnp.arange(prefix, dtype=jnp.int32)[None, None]
    return own, None if window is None else behind < window
