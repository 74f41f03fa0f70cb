"""Prompts, and drafts of answers behind them, through the model in pieces.

A draft is what somebody else, the base, answered. All of it is run with the prompt in one pass, as
if it had been said; it is right up to the first token that greedy decoding would not have chosen,
and decoding goes on from there. What is said is what decoding alone would say.

Shapes: g prompts, Q prompt tokens, padded left, T new tokens, M columns of both, W of a piece.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.text.cache import Around
from thicket_jax.text.choosing import first_largest
from thicket_jax.text.common import largest
from thicket_jax.text.model import logits
from thicket_jax.text.parts import parts
from thicket_jax.text.passes import LOGITS_BYTES, Passes

_PIECES = 4  # that a prompt is run in
_PIECE = 8  # tokens of a piece at least


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """What g prompts left: each is in the cache but for its last token, which is run next.

    Attributes:
      cache: `keys` and `values` [..., g, H, d, M], rows of equal ends.
      last: int32 [g], each row's last token.
      length: int32 [g], tokens of each row in the cache.
      accepted: int32 [g], how many tokens of its draft are right.
      finite: bool [g], whether the logits that said so were finite.
    """

    cache: dict[str, Any]
    last: jax.Array
    length: jax.Array
    accepted: jax.Array
    finite: jax.Array


def drafted(draft: jax.Array, ends: tuple[int, ...], greedy: jax.Array) -> jax.Array:
    """Returns how many tokens of drafts int32 [N, T] are tried: [N], at most T - 1.

    Not the end, nor what is behind it, nor the last of T, which are left to decoding; none where
    tokens are drawn.
    """
    T = draft.shape[1]
    end = jnp.zeros(draft.shape, bool)
    for token in ends:
        end |= draft == token
    length = jnp.where(end.any(1), end.argmax(1), T).astype(jnp.int32)
    return jnp.where(greedy, jnp.minimum(length, T - 1), 0)


def prefill(
    passes: Passes,
    params: Any,
    prompts: jax.Array,
    lengths: jax.Array,
    around: Around,
    draft: jax.Array | None = None,
    tried: jax.Array | None = None,
) -> Prefilled:
    """Runs g prompts, as many pieces of them as the longest needs.

    Memory: a cache of g rows of M tokens; logits of at most `LOGITS_BYTES`.

    Args:
      passes: how the model is run.
      params: the expert's.
      prompts: int32 [g, Q].
      lengths: int32 [g], tokens of each; 0 for none.
      around: what is around their cache.
      draft: int32 [g, T].
      tried: int32 [g], how many tokens of a draft are tried.
    """
    g, Q = prompts.shape
    W = max(1, -(-(Q - 1) // max(1, min(_PIECES, Q // _PIECE))))
    # Neither the last token of a prompt is run, nor of a draft.
    said = prompts if draft is None else jnp.concatenate([prompts, draft[:, :-1]], 1)
    n = max(1, -(-(said.shape[1] - 1) // W))
    lacking = n * W + 1 - said.shape[1]
    said = jnp.pad(said, ((0, 0), (lacking, 0)))
    first = lacking + Q - 1  # the column of a prompt's last token
    begin = first + 1 - lengths
    columns = jnp.arange(n * W, dtype=jnp.int32)

    def piece(carry: Any) -> Any:
        index, cache, right, broken = carry
        here = index * W
        part = jax.lax.dynamic_slice_in_dim(said, here, W, 1)
        places = here + columns[:W]
        positions = jnp.maximum(places[None] - begin[:, None], 0)
        seen = (columns[None] <= places[:, None])[None] & (columns[None] >= begin[:, None])[:, None]
        states, cache = passes.run(params, part, positions, {**cache, "end": here}, seen, around)
        cache = {name: cache[name] for name in ("keys", "values")}
        if draft is None:
            return index + 1, cache, right, broken
        following = jax.lax.dynamic_slice_in_dim(said, here + 1, W, 1)

        def look() -> tuple[jax.Array, jax.Array]:
            return _verified(passes, params, states, following, places - first)

        wrong, odd = jax.lax.cond(here + W > first, look, lambda: (right, broken))
        return index + 1, cache, jnp.minimum(right, wrong), jnp.minimum(broken, odd)

    def more(carry: Any) -> Any:
        return carry[0]

    def body(carry: Any) -> Any:
        found = piece(carry[1])
        return going(found), found

    def going(carry: Any) -> Any:
        """Until all prompts, and of drafts what is right, are run."""
        index, _, right, _ = carry
        return index * W < first + largest(right.max())

    empty = passes.cache(g, n * W)
    cache = {name: empty[name] for name in ("keys", "values")}
    right = jnp.zeros_like(lengths) if tried is None else jnp.where(lengths > 0, tried, 0)
    far = jnp.full_like(lengths, n * W)
    longest = largest(lengths.max())
    start = (first + 1 - jnp.maximum(longest, 1)) // W, cache, right, far
    _, (_, cache, right, broken) = jax.lax.while_loop(more, body, (going(start), start))
    last, length = prompts[:, -1], lengths - 1
    if draft is not None:
        told = jnp.take_along_axis(draft, jnp.maximum(right - 1, 0)[:, None], 1)[:, 0]
        last = jnp.where(right > 0, told, last)
        cache = jax.tree.map(lambda x: _ending(x, first + right, Q + draft.shape[1] - 2), cache)
    else:
        cache = jax.tree.map(lambda x: x[..., :first], cache)
    return Prefilled(cache, last, length + right, right, broken >= right)


def _verified(
    passes: Passes, params: Any, states: jax.Array, following: jax.Array, index: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the first token of each draft in a piece that is wrong, and whose logits are odd.

    Args:
      passes: how the model is run.
      params: the expert's.
      states: [g, W, D], the last layer's.
      following: int32 [g, W], what the draft says behind each.
      index: int32 [W], which token of the draft that is; below 0, of the prompt.

    Returns:
      int32 [g] each; a large number where there is none.
    """
    g, W = following.shape
    chunks = parts(W, 4 * g * W * passes.config.vocab_size, LOGITS_BYTES)

    def some(states: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = logits(passes.config, params, states)
        flat = found.reshape(-1, found.shape[-1])
        chosen, fine = first_largest(flat), jnp.isfinite(flat.max(-1))
        return chosen.reshape(found.shape[:2]), fine.reshape(found.shape[:2])

    if chunks == 1:
        chosen, fine = some(states)
    else:
        pieces = jnp.moveaxis(states.reshape(g, chunks, W // chunks, -1), 1, 0)
        chosen, fine = (jnp.moveaxis(x, 0, 1).reshape(g, W) for x in jax.lax.map(some, pieces))
    none = jnp.iinfo(jnp.int32).max
    index = jnp.where(index < 0, none, index)[None]
    wrong = jnp.where(chosen != following, index, none).min(1)
    return wrong, jnp.where(fine, none, index).min(1)


def _ending(x: jax.Array, ends: jax.Array, count: int) -> jax.Array:
    """The last `count` columns of [..., g, H, d, M] before each row's own end, int32 [g]."""
    wide = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(count, 0)])

    def row(x: jax.Array, end: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, end, count, -1)

    axis = x.ndim - 4
    return jax.vmap(row, in_axes=(axis, 0), out_axes=axis)(wide, ends)
