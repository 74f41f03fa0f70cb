"""One decoder for all families: Llama, Mistral, Qwen, OLMo, Gemma, Phi, SmolLM3, Granite, Mixtral.

What differs between them is in the config, as numbers, names and one rope and window a layer.

Parameters are nested dicts whose keys are the parts of the checkpoint's tensor names, and weights
keep its layout, [out, in]. Layers are one `Stack`, so that a layer is code once; its slices have
the checkpoint's names (`model.layers.0.self_attn.q_proj.weight`), and so loading and exporting are
loops over names, and an expert's noise is tied to names that everybody has.

Shapes: B rows, S new tokens, T cache slots.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from thicket_jax.experts.stacks import Stack
from thicket_jax.text.attention import capped, seen
from thicket_jax.text.cache import Around, Cache, empty_cache, laid
from thicket_jax.text.config import Config
from thicket_jax.text.layers import Embedding, Layer, Linear, RMSNorm
from thicket_jax.text.rope import Rope, rotary_table


def random_params(config: Config, rngs: nnx.Rngs, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Returns random parameters: matrices of variance 1 / inputs, an embedding of 1, norms 1."""
    options: dict[str, Any] = {"rngs": rngs, "dtype": dtype}

    def pure(module: nnx.Module) -> Any:
        return nnx.to_pure_dict(nnx.split(module)[1])

    embedding = pure(Embedding(config.vocab_size, config.hidden_size, **options))
    layers = [pure(Layer(config, **options)) for _ in range(config.num_layers)]
    if config.mixture is not None:
        for layer in layers:
            layer[config.block]["experts"] = Stack(layer[config.block]["experts"])
    norm = pure(RMSNorm(config, config.hidden_size, dtype=dtype))
    params = {"model": {"embed_tokens": embedding, "layers": Stack.of(layers), "norm": norm}}
    if not config.tied:
        head = Linear(config.hidden_size, config.vocab_size, False, **options)
        params["lm_head"] = pure(head)
    return params


def forward(
    config: Config,
    params: Any,
    tokens: jax.Array,
    positions: jax.Array,
    cache: Cache | None,
    attention_mask: jax.Array,
    last_only: bool = False,
    unroll: bool | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs S tokens of every row.

    Args:
      config: the model's.
      params: as `random_params` returns them.
      tokens: int32 [B, S].
      positions: int32 [B, S], each token's position in its own row, from 0.
      cache: what `empty_cache` or an earlier call returned; None starts one of S slots.
      attention_mask: bool [B, S, T], the slots that each token sees (S of them without a cache);
        causality is the caller's, sliding windows are the model's.
      last_only: return the logits of the last token alone, [B, 1, V].
      unroll: without a cache, layers as code of their own in place of a scan; None: on a CPU. A
        cache was made for the one or the other.

    Returns:
      Logits, float32 [B, S, V], and the cache with these tokens in it.
    """
    x, cache = hidden(config, params, tokens, positions, cache, attention_mask, unroll)
    return logits(config, params, x[:, -1:] if last_only else x), cache


def hidden(
    config: Config,
    params: Any,
    tokens: jax.Array,
    positions: jax.Array,
    cache: Cache | None,
    attention_mask: jax.Array,
    unroll: bool | None = None,
    around: Around | None = None,
) -> tuple[jax.Array, Cache]:
    """Returns what the last layer says of every token, [B, S, D], and the cache; see `forward`.

    `around` says where the cache lies; by default nothing is around it.
    """
    model = params["model"]
    x = model["embed_tokens"]["weight"][tokens]
    if config.embedding_multiplier != 1:
        x = x * jnp.asarray(config.embedding_multiplier, x.dtype)
    if cache is None:
        cache = empty_cache(config, tokens.shape[0], tokens.shape[1], x.dtype, unroll)
    run = _unrolled if isinstance(cache["keys"], tuple) else _scanned
    around = around or Around()
    layers = model["layers"].tree
    x, keys, values = run(config, layers, x, positions, cache, attention_mask, around)
    end = jnp.asarray(cache["end"] + tokens.shape[1], jnp.int32)
    return x, {"end": end, "keys": keys, "values": values}


def logits(
    config: Config, params: Any, x: jax.Array, part: tuple[Any, int] | None = None
) -> jax.Array:
    """Returns the logits, float32 [B, S, V], of what the last layer says, [B, S, D].

    `part` is (first, count): of that many tokens of the vocabulary alone, [B, S, count].
    """
    x = nnx.merge(_norm_graph(config), params["model"]["norm"])(x)
    head = (params["model"]["embed_tokens"] if config.tied else params["lm_head"])["weight"]
    if part is not None:
        head = jax.lax.dynamic_slice_in_dim(head, *part, axis=0)
    found = jnp.einsum("bsi,oi->bso", x, head, preferred_element_type=jnp.float32)
    found = found.astype(jnp.float32)
    if config.logits_divisor != 1:
        found = found / config.logits_divisor
    return capped(found, config.logit_softcap)


def _visible(
    mask: jax.Array, positions: jax.Array, end: Any, around: Around
) -> Callable[[Any], Any]:
    """Returns window → masks of what the new tokens see."""
    S, T = mask.shape[-2:]
    slots = jnp.arange(T, dtype=jnp.int32)[None]
    distance = (jnp.arange(S, dtype=jnp.int32) + end)[:, None] - slots
    if around.ring:
        distance = distance % T
    return lambda window: seen(mask, window, distance, positions, around.prefix)


def _unrolled(
    config: Config,
    layers: Any,
    x: jax.Array,
    positions: Any,
    cache: Cache,
    mask: jax.Array,
    around: Around,
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Runs layer after layer; a cache is an array for each."""
    end, T = cache["end"], mask.shape[-1]
    tables = _rotary_tables(config, positions, cache, around)
    kept = {name: list(cache[name]) for name in ("keys", "values")}
    visible, shared = _visible(mask, positions, end, around), around.shared
    for i, (rope, window) in enumerate(zip(config.ropes, config.windows, strict=True)):

        def keep(*new: jax.Array, i: int = i) -> Any:
            for (name, held), slots in zip(kept.items(), new, strict=True):
                slots = slots.astype(held[i].dtype)
                held[i] = jax.lax.dynamic_update_slice_in_dim(held[i], slots, end, 3)
                yield held[i][..., :T], *([shared[name][i]] if shared else [])

        layer = _layer(config, jax.tree.map(lambda leaf, i=i: leaf[i], layers))
        x = layer(x, tables[rope], visible(window), keep)
    return x, tuple(kept["keys"]), tuple(kept["values"])


def _scanned(
    config: Config,
    layers: Any,
    x: jax.Array,
    positions: Any,
    cache: Cache,
    mask: jax.Array,
    around: Around,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs the layers as a scan; the caches of all are carried, and written in place."""
    end, T = jnp.asarray(cache["end"], jnp.int32), mask.shape[-1]
    each = _rotary_tables(config, positions, cache, around)
    ropes, tables = list(each), jax.tree.map(lambda *parts: jnp.stack(parts), *each.values())
    windowed = any(window is not None for window in config.windows)
    far = np.iinfo(np.int32).max
    rows = {
        "layer": layers,
        "number": np.arange(config.num_layers, dtype=np.int32),
        "rope": np.asarray([ropes.index(rope) for rope in config.ropes], np.int32),
        "window": np.asarray([far if w is None else w for w in config.windows], np.int32),
        "shared": around.shared,
    }
    visible = _visible(mask, positions, end, around)

    def step(carry: Any, row: Any) -> tuple[Any, None]:
        x, *held = carry

        def keep(*new: jax.Array) -> Any:
            for n, (name, slots) in enumerate(zip(("keys", "values"), new, strict=True)):
                begin = (row["number"], 0, 0, 0, end)
                slots = slots[None].astype(held[n].dtype)
                held[n] = laid(jax.lax.dynamic_update_slice(held[n], slots, begin))
                one = (1, len(x), *held[n].shape[2:-1], T)
                own = jax.lax.dynamic_slice(held[n], (row["number"], 0, 0, 0, 0), one)[0]
                yield own, *([row["shared"][name]] if row["shared"] else [])

        which = row["rope"] if len(ropes) > 1 else 0
        table = jax.tree.map(lambda x: x[which], tables)
        masks = visible(row["window"] if windowed else None)
        x = _layer(config, row["layer"])(x, table, masks, keep)
        return (x, *held), None

    (x, keys, values), _ = jax.lax.scan(step, (x, cache["keys"], cache["values"]), rows)
    return x, keys, values


def _rotary_tables(
    config: Config, positions: jax.Array, cache: Cache, around: Around
) -> dict[Rope, Any]:
    """The cosines and sines of each of the model's ropes, for texts as long as the cache."""
    slots = around.length or max(leaf.shape[-1] for leaf in jax.tree.leaves(cache["keys"]))
    ropes = dict.fromkeys(config.ropes)
    return {rope: rotary_table(rope, config.head_dim, positions, slots) for rope in ropes}


def _layer(config: Config, params: Any) -> Layer:
    """A layer of these parameters; a stack of a mixture's experts is one array to it."""
    params = jax.tree.map(
        lambda node: node.tree if isinstance(node, Stack) else node,
        params,
        is_leaf=lambda node: isinstance(node, Stack),
    )
    return nnx.merge(_layer_graph(config), params)


@functools.cache
def _layer_graph(config: Config) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Layer(config, rngs=nnx.Rngs(0), dtype=jnp.float32)))[0]


@functools.cache
def _norm_graph(config: Config) -> nnx.GraphDef:
    norm = nnx.eval_shape(lambda: RMSNorm(config, config.hidden_size, dtype=jnp.float32))
    return nnx.split(norm)[0]


def abstract(config: Config, dtype: Any) -> dict[str, Any]:
    """Returns the parameters' shapes, without making them: those of one layer, for all."""
    one = dataclasses.replace(config, num_layers=1)
    params = dict(jax.eval_shape(lambda: random_params(one, nnx.Rngs(0), dtype)))
    layers = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((config.num_layers, *x.shape[1:]), x.dtype),
        params["model"]["layers"],
    )
    return params | {"model": params["model"] | {"layers": layers}}
