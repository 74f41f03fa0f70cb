"""Prompts → generated tokens: prefill, then cached steps until every row has ended.

One compiled program for each shape. Pure in the parameters: under vmap the experts of a block step
together, and the loop ends when the last row of the last expert has ended; under `lax.map` and pmap
it is the same function.

Shapes: C·R prompts, R side by side, P prompt tokens, T new tokens.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.text import slots
from thicket_jax.text.cache import laid
from thicket_jax.text.common import any_expert
from thicket_jax.text.config import Config
from thicket_jax.text.passes import Passes

Batch = dict[str, Any]
"""`tokens` int32 [C, R, P], padded left; `start` int32 [C, R], index of a row's first token (P for
a filler row, which has none); `row` int32 [C, R], its number; `key` uint32 [2]; `temperature` and
`top_p` float32 []. Perhaps `draft` int32 [C, R, T], answers that greedy ones may begin like, filled
up with an end token; one that begins with it is none. Perhaps `expected` int32 [C, R], how long
answers may be: the longest come first; by default those of the longest drafts."""

Decode = Callable[[Any, Batch, jax.Array], dict[str, jax.Array]]


@functools.lru_cache(maxsize=32)
def decoder(
    config: Config, max_tokens: int, dtype: str, unroll: bool | None = None, prefix: int = 0
) -> Decode:
    """Returns `decode(params, batch, draw)`, one function object for equal arguments.

    `decode` returns `tokens`, int32 [C, R, T], each row filled up after its end with the first
    end-of-sequence token, and `finite`, bool [C, R]: no logit on the way was NaN or infinite.

    A `temperature` of 0 is greedy. Above, tokens are drawn from softmax(logits / temperature) cut
    to the smallest set of probability `top_p`, with the key folded from (`key`, `draw`, the row's
    number, the step): the same draw of the same row is the same text in any batch.

    More prompts than rows (C > 1) are a queue: a row that has ended takes the next; see `slots`.
    Drafts change no token, but how fast they come; see `prefill`.

    Memory, for each expert: its parameters, and a cache of R rows of P - F + T slots and of one of
    F, the prefix's length.

    Args:
      config: the model's.
      max_tokens: T.
      dtype: of the parameters, and of the cache.
      unroll: layers as code of their own, or as a scan; see `model.forward`.
      prefix: how many tokens all prompts of a batch begin with, less than the shortest has; they
        are run once, and kept once; see `prefixes`.
    """
    passes = Passes(config, max_tokens, dtype, unroll, prefix)

    def decode(params: Any, batch: Batch, draw: jax.Array) -> dict[str, jax.Array]:
        C, R, _ = batch["tokens"].shape
        lists = {name: batch[name].reshape(C * R, -1) for name in ("tokens", "start", "row")}
        flat = {**batch, "tokens": lists["tokens"]}
        flat |= {name: lists[name][:, 0] for name in ("start", "row")}
        for name in ("draft", "expected"):
            if name in batch:
                flat[name] = batch[name].reshape(C * R, *batch[name].shape[2:])
        if C == 1 and "draft" not in batch:
            out = _side_by_side(passes, params, flat, draw)
        else:
            out = slots.decode(passes, R, params, flat, draw)[0]
        return {name: out[name].reshape(C, R, *out[name].shape[1:]) for name in out}

    return decode


def _side_by_side(passes: Passes, params: Any, batch: Batch, draw: Any) -> dict[str, jax.Array]:
    """All prompts at once: tokens [R, P]."""
    T = passes.max_tokens
    shared = passes.shared(params, batch["tokens"], batch["start"])
    around = passes.around(shared, batch["tokens"])
    tokens, start = passes.behind(batch)
    R, Q = tokens.shape

    def some(tokens: Any, start: Any, slots: int) -> tuple[Any, Any]:
        """Runs some prompts; returns what the model says of their last tokens, and their cache."""
        places = jnp.arange(Q, dtype=jnp.int32)
        positions = jnp.maximum(places[None] - start[:, None], 0)
        seen = (places[None] <= places[:, None])[None] & (places[None] >= start[:, None])[:, None]
        cache = passes.cache(len(start), slots)
        states, cache = passes.run(params, tokens, positions, cache, seen, around)
        return states[:, -1], cache

    def prefill() -> Any:
        groups = passes.groups(R, Q)
        if groups == 1:
            states, cache = some(tokens, start, Q + T)
        else:
            states, cache = in_groups(groups)
        ended = start == Q
        chosen = passes.choose(params, states, batch, draw, jnp.zeros((), jnp.int32), ended)
        return *chosen, cache["keys"], cache["values"]

    def in_groups(groups: int) -> tuple[Any, Any]:
        rows = R // groups

        def group(index: Any, carry: Any) -> Any:
            said, whole = carry
            part = jax.lax.dynamic_slice_in_dim(tokens, index * rows, rows, 0)
            begin = jax.lax.dynamic_slice_in_dim(start, index * rows, rows, 0)
            states, cache = some(part, begin, Q)
            put = functools.partial(_put_rows, index * rows)
            whole = {name: jax.tree.map(put, whole[name], cache[name]) for name in whole}
            return jax.lax.dynamic_update_slice_in_dim(said, states, index * rows, 0), whole

        whole = {name: passes.cache(R, Q + T)[name] for name in ("keys", "values")}
        said = jnp.zeros((R, passes.config.hidden_size), passes.dtype)
        return jax.lax.fori_loop(0, groups, group, (said, whole))

    def step(index: Any, state: Any) -> Any:
        last, ended, finite, keys, values = state
        end = Q + index - 1
        slots = jnp.arange(Q + T, dtype=jnp.int32)
        seen = (slots[None] >= start[:, None]) & (slots[None] <= end)
        cache = {"end": end, "keys": keys, "values": values}
        places = (end - start)[:, None]
        states, cache = passes.run(params, last[:, None], places, cache, seen[:, None], around)
        chosen, ended, fine = passes.choose(params, states[:, 0], batch, draw, index, ended)
        return chosen, ended, finite & fine, cache["keys"], cache["values"]

    def more(carry: Any) -> Any:
        index, going, _, _ = carry
        return (index < T) & going

    def body(carry: Any) -> Any:
        index, _, out, state = carry
        state = step(index, state)
        out = jax.lax.dynamic_update_index_in_dim(out, state[0], index, 0)
        return index + 1, any_expert(~state[1].all()), out, state

    state = prefill()
    out = jnp.full((T, R), passes.filler, jnp.int32).at[0].set(state[0])
    begin = (jnp.ones((), jnp.int32), any_expert(~state[1].all()), out, state)
    _, _, out, state = jax.lax.while_loop(more, body, begin)
    return {"tokens": out.T, "finite": state[2]}


def sampling(seed: int, temperature: float = 0.0, top_p: float = 1.0) -> dict[str, np.ndarray]:
    """Returns the entries of a batch that say how tokens are chosen; the default is greedy."""
    return {
        "key": np.asarray(jax.random.key_data(jax.random.key(seed))),
        "temperature": np.asarray(temperature, np.float32),
        "top_p": np.asarray(top_p, np.float32),
    }


def _put_rows(first: Any, held: jax.Array, new: jax.Array) -> jax.Array:
    """Puts rows [..., r, H, d, Q] into the first slots of [..., R, H, d, T], in place."""
    begin = (0,) * (held.ndim - 4) + (first, 0, 0, 0)
    return laid(jax.lax.dynamic_update_slice(held, new.astype(held.dtype), begin))
