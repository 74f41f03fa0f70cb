"""Prompts → generated tokens: prefill, then cached steps until every row has ended.

One compiled program for each shape. Pure in the parameters: under vmap the experts of a block step
together, and the loop ends when the last row of the last expert has ended; under `lax.map` and pmap
it is the same function.

Shapes: C chunks that run one after another, R rows side by side, P prompt tokens, T new tokens.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.text.cache import empty_cache
from thicket_jax.text.config import Config
from thicket_jax.text.model import forward

Batch = dict[str, Any]
"""`tokens` int32 [C, R, P], padded left; `start` int32 [C, R], index of a row's first token (P for
a filler row, which has none); `row` int32 [C, R], its number; `key` uint32 [2]; `temperature` and
`top_p` float32 []."""

Decode = Callable[[Any, Batch, jax.Array], dict[str, jax.Array]]


@functools.lru_cache(maxsize=32)
def decoder(config: Config, max_tokens: int, dtype: str, unroll: bool | None = None) -> Decode:
    """Returns `decode(params, batch, draw)`, one function object for equal arguments.

    `decode` returns `tokens`, int32 [C, R, T], each row filled up after its end with the first
    end-of-sequence token, and `finite`, bool [C, R]: no logit on the way was NaN or infinite.

    A `temperature` of 0 is greedy. Above, tokens are drawn from softmax(logits / temperature) cut
    to the smallest set of probability `top_p`, with the key folded from (`key`, `draw`, the row's
    number, the step): the same draw of the same row is the same text in any batch.

    Memory, for each expert: its parameters, and a cache of R rows of P + T slots.

    Args:
      config: the model's.
      max_tokens: T.
      dtype: of the parameters, and of the cache.
      unroll: layers as code of their own, or as a scan; see `model.forward`.
    """
    eos = config.eos_ids
    filler = eos[0] if eos else 0

    def run(params: Any, tokens: Any, positions: Any, cache: Any, mask: Any) -> Any:
        logits, cache = forward(config, params, tokens, positions, cache, mask, last_only=True)
        return logits[:, 0], cache

    def choose(logits: Any, batch: Batch, draw: Any, step: Any, ended: Any) -> Any:
        chosen = next_tokens(logits, batch, draw, step)
        chosen = jnp.where(ended, filler, chosen)
        stop = functools.reduce(jnp.logical_or, [chosen == e for e in eos], jnp.zeros_like(ended))
        return chosen, ended | stop, jnp.isfinite(logits.max(-1)) | ended

    def prefill(params: Any, batch: Batch, draw: Any) -> Any:
        tokens, start = batch["tokens"], batch["start"]
        P = tokens.shape[1]
        slots = jnp.arange(P, dtype=jnp.int32)
        positions = jnp.maximum(slots[None] - start[:, None], 0)
        seen = (slots[None, :] <= slots[:, None])[None] & (slots[None] >= start[:, None])[:, None]
        cache = empty_cache(config, tokens.shape[0], P + max_tokens, dtype, unroll)
        logits, cache = run(params, tokens, positions, cache, seen)
        ended = start == P
        chosen, ended, finite = choose(logits, batch, draw, jnp.zeros((), jnp.int32), ended)
        return chosen, ended, finite, cache["keys"], cache["values"]

    def step(params: Any, batch: Batch, draw: Any, index: Any, state: Any) -> Any:
        last, ended, finite, keys, values = state
        start, P = batch["start"], batch["tokens"].shape[1]
        end = P + index - 1
        slots = jnp.arange(P + max_tokens, dtype=jnp.int32)
        seen = (slots[None] >= start[:, None]) & (slots[None] <= end)
        cache = {"end": end, "keys": keys, "values": values}
        logits, cache = run(params, last[:, None], (end - start)[:, None], cache, seen[:, None])
        chosen, ended, fine = choose(logits, batch, draw, index, ended)
        return chosen, ended, finite & fine, cache["keys"], cache["values"]

    def rows(params: Any, batch: Batch, draw: Any) -> Any:
        state = prefill(params, batch, draw)
        out = jnp.full((max_tokens, state[0].shape[0]), filler, jnp.int32).at[0].set(state[0])

        def more(carry: Any) -> Any:
            index, going, _, _ = carry
            return (index < max_tokens) & going

        def body(carry: Any) -> Any:
            index, _, out, state = carry
            state = step(params, batch, draw, index, state)
            out = jax.lax.dynamic_update_index_in_dim(out, state[0], index, 0)
            return index + 1, any_expert(~state[1].all()), out, state

        begin = (jnp.ones((), jnp.int32), any_expert(~state[1].all()), out, state)
        _, _, out, state = jax.lax.while_loop(more, body, begin)
        return {"tokens": out.T, "finite": state[2]}

    def decode(params: Any, batch: Batch, draw: jax.Array) -> dict[str, jax.Array]:
        common = {name: batch[name] for name in ("key", "temperature", "top_p")}
        chunks = {name: batch[name] for name in ("tokens", "start", "row")}

        def chunk(part: Any) -> Any:
            return rows(params, {**common, **part}, draw)

        if batch["tokens"].shape[0] == 1:
            out = chunk(jax.tree.map(lambda x: x[0], chunks))
            return jax.tree.map(lambda x: x[None], out)
        return jax.lax.map(chunk, chunks)

    return decode


@jax.custom_batching.custom_vmap
def any_expert(going: jax.Array) -> jax.Array:
    """Returns `going`, bool []; under vmap, whether it holds for any: one value for all experts.

    A loop whose condition differs between experts would copy every cache at every step.
    """
    return going


@any_expert.def_vmap
def _any_expert(axis_size: int, in_batched: list[bool], going: jax.Array) -> tuple[Any, bool]:
    del axis_size
    return any_expert(going.any(0) if in_batched[0] else going), False


def next_tokens(logits: jax.Array, batch: Batch, draw: jax.Array, step: jax.Array) -> jax.Array:
    """Chooses one token a row from logits float32 [R, V]; int32 [R]."""

    def greedy(_: None) -> jax.Array:
        return first_largest(logits)

    def sampled(_: None) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(batch["key"]), draw)
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), step))(
            batch["row"]
        )
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


def sampling(seed: int, temperature: float = 0.0, top_p: float = 1.0) -> dict[str, np.ndarray]:
    """Returns the entries of a batch that say how tokens are chosen; the default is greedy."""
    return {
        "key": np.asarray(jax.random.key_data(jax.random.key(seed))),
        "temperature": np.asarray(temperature, np.float32),
        "top_p": np.asarray(top_p, np.float32),
    }
