"""One decoder for the Llama, Mistral, Qwen2, Qwen3, OLMo-2 and OLMo-3 families.

Parameters are nested dicts whose keys are the parts of the checkpoint's tensor names, and weights
keep its layout, [out, in]. Layers are one `Stack`, so that a layer is code once; its slices have
the checkpoint's names (`model.layers.0.self_attn.q_proj.weight`), and so loading and exporting are
loops over names, and an expert's noise is tied to names that everybody has.

Shapes: B rows, S new tokens, T cache slots, L layers, H heads, G query heads a key-value head, d
head size.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from thicket_jax.experts.stacks import Stack
from thicket_jax.text.config import Config
from thicket_jax.text.rope import rotary_table

Cache = dict[str, Any]
"""`end`: int32 [], slots in use; `keys` and `values`: [L, B, H_kv, d, T], or a tuple of L arrays
where layers are unrolled."""

_SCORES = 2**26  # bytes of attention scores that are held at once, if there are more queries
_MASKED = -1e30  # float32; finite, so that a row that sees nothing does not become NaN

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class Linear(nnx.Module):
    """x·Wᵀ + b, with W [out, in]."""

    def __init__(self, inside: int, outside: int, bias: bool, *, rngs: nnx.Rngs, dtype: Any):
        """Draws a random weight; a checkpoint's is put in its place."""
        weight = jax.random.normal(rngs.params(), (outside, inside), dtype)
        self.weight = nnx.Param(weight * jnp.asarray(inside**-0.5, dtype))
        if bias:
            self.bias = nnx.Param(jnp.zeros((outside,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [..., out] for [..., in]."""
        out = jnp.einsum("...i,oi->...o", x, self.weight[...])
        return out + _along(self.bias[...], out) if hasattr(self, "bias") else out


def _along(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector along the last axis of x, of the same rank."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


class RMSNorm(nnx.Module):
    """x / rms(x) · w over the last axis, in float32."""

    def __init__(self, size: int, eps: float, *, dtype: Any):
        """Starts at a weight of one."""
        self.eps = eps
        self.weight = nnx.Param(jnp.ones((size,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array like x."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return (wide * _along(self.weight[...].astype(jnp.float32), x)).astype(x.dtype)


class Embedding(nnx.Module):
    """Rows of a table [V, D]."""

    def __init__(self, vocabulary: int, size: int, *, rngs: nnx.Rngs, dtype: Any):
        """Draws a random table."""
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (vocabulary, size), dtype))


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the projections that the config names."""
        self.config = config
        D, d = config.hidden_size, config.head_dim
        wide, narrow = config.num_heads * d, config.num_kv_heads * d
        options: dict[str, Any] = {"rngs": rngs, "dtype": dtype}
        self.q_proj = Linear(D, wide, config.qkv_bias, **options)
        self.k_proj = Linear(D, narrow, config.qkv_bias, **options)
        self.v_proj = Linear(D, narrow, config.qkv_bias, **options)
        self.o_proj = Linear(wide, D, config.output_bias, **options)
        if config.qk_norm != "none":
            full = config.qk_norm == "full"
            self.q_norm = RMSNorm(wide if full else d, config.norm_eps, dtype=dtype)
            self.k_norm = RMSNorm(narrow if full else d, config.norm_eps, dtype=dtype)

    def __call__(
        self,
        x: jax.Array,
        table: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        keep: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    ) -> jax.Array:
        """Returns [B, S, D].

        Args:
          x: [B, S, D].
          table: cosines and sines [B, S, d].
          mask: bool [B, S, T], the slots that each token sees.
            keep: takes the new keys and values [B, H_kv, d, S]; returns all [B, H_kv, d, T].
        """
        config = self.config
        B, S, _ = x.shape
        d, groups = config.head_dim, config.num_heads // config.num_kv_heads
        queries, keys, values = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if config.qk_norm == "full":
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries = queries.reshape(B, S, config.num_heads, d)
        keys = keys.reshape(B, S, config.num_kv_heads, d)
        values = values.reshape(B, S, config.num_kv_heads, d)
        if config.qk_norm == "head":
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys = rotate(queries, table), rotate(keys, table)
        # Slots are the last axis: a step's products then run along contiguous memory.
        keys, values = jnp.transpose(keys, (0, 2, 3, 1)), jnp.transpose(values, (0, 2, 3, 1))
        keys, values = keep(keys, values)
        queries = queries.reshape(B, S, config.num_kv_heads, groups, d)
        scale = config.attention_scale
        out = attend_step if S == 1 else attend
        mixed = out(queries, keys, values, mask, scale)
        return self.o_proj(mixed.reshape(B, S, config.num_heads * d).astype(x.dtype))


def attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float
) -> jax.Array:
    """Softmax attention as matrix products; scores and weights in float32.

    Queries go through in chunks, so that scores [B, H, S, T] of a long prompt are never held.

    Args:
      queries: [B, S, H_kv, G, d].
      keys, values: [B, H_kv, d, T].
      mask: bool [B, S, T].
      scale: of the scores.

    Returns:
      [B, S, H_kv, G, d], in the values' dtype.
    """

    def some(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        queries, mask = part
        scores = jnp.einsum("bshgd,bhdt->bhgst", queries, keys, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None], scores * scale, _MASKED)
        weights = jax.nn.softmax(scores, -1).astype(values.dtype)
        return jnp.einsum("bhgst,bhdt->bshgd", weights, values)

    if _on_cpu():  # which in some loops has no product of 16 bits in float32
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
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float
) -> jax.Array:
    """The same for one new token, S = 1, without its axis: plain products for every head."""
    scores = jnp.einsum("bhgd,bhdt->bhgt", queries[:, 0], keys, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, 0, None, None], scores * scale, _MASKED)
    weights = jax.nn.softmax(scores, -1).astype(values.dtype)
    return jnp.einsum("bhgt,bhdt->bhgd", weights, values)[:, None]


def rotate(x: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the two halves of every head by its position: rotary embedding, in float32.

    Args:
      x: [B, S, H, d].
      table: cosines and sines, float32 [B, S, d].
    """
    cosine, sine = (part[:, :, None] for part in table)
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, -1)
    turned = jnp.concatenate([-second, first], -1)
    return (wide * cosine + turned * sine).astype(x.dtype)


class MLP(nnx.Module):
    """Gated feed-forward: down(act(gate(x)) · up(x))."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the three projections."""
        D, F, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = config.activation
        self.gate_proj = Linear(D, F, bias, rngs=rngs, dtype=dtype)
        self.up_proj = Linear(D, F, bias, rngs=rngs, dtype=dtype)
        self.down_proj = Linear(F, D, bias, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, S, D]."""
        gate = ACTIVATIONS[self.activation](self.gate_proj(x))
        return self.down_proj(gate * self.up_proj(x))


class Layer(nnx.Module):
    """Attention and feed-forward with their norms, before them or on what they return."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the blocks, and the norms under the names of the family."""
        self.pre = config.norm_position == "pre"
        self.self_attn = Attention(config, rngs=rngs, dtype=dtype)
        self.mlp = MLP(config, rngs=rngs, dtype=dtype)
        size, eps = config.hidden_size, config.norm_eps
        if self.pre:
            self.input_layernorm = RMSNorm(size, eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(size, eps, dtype=dtype)
        if not self.pre:
            self.post_feedforward_layernorm = RMSNorm(size, eps, dtype=dtype)

    def __call__(self, x: jax.Array, table: Any, mask: jax.Array, keep: Any) -> jax.Array:
        """Returns [B, S, D]; takes what the attention takes."""
        if self.pre:
            x = x + self.self_attn(self.input_layernorm(x), table, mask, keep)
            return x + self.mlp(self.post_attention_layernorm(x))
        x = x + self.post_attention_layernorm(self.self_attn(x, table, mask, keep))
        return x + self.post_feedforward_layernorm(self.mlp(x))


def random_params(config: Config, rngs: nnx.Rngs, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Returns random parameters: matrices of variance 1 / inputs, an embedding of 1, norms 1."""
    options: dict[str, Any] = {"rngs": rngs, "dtype": dtype}

    def pure(module: nnx.Module) -> Any:
        return nnx.to_pure_dict(nnx.split(module)[1])

    embedding = pure(Embedding(config.vocab_size, config.hidden_size, **options))
    layers = [pure(Layer(config, **options)) for _ in range(config.num_layers)]
    norm = pure(RMSNorm(config.hidden_size, config.norm_eps, dtype=dtype))
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
    model = params["model"]
    x = model["embed_tokens"]["weight"][tokens]
    if cache is None:
        cache = empty_cache(config, tokens.shape[0], tokens.shape[1], x.dtype, unroll)
    run = _unrolled if isinstance(cache["keys"], tuple) else _scanned
    x, keys, values = run(config, model["layers"].tree, x, positions, cache, attention_mask)
    if last_only:
        x = x[:, -1:]
    x = nnx.merge(_norm_graph(config), model["norm"])(x)
    head = model["embed_tokens"] if config.tied else params["lm_head"]
    logits = jnp.einsum("bsi,oi->bso", x, head["weight"], preferred_element_type=jnp.float32)
    end = jnp.asarray(cache["end"] + tokens.shape[1], jnp.int32)
    return logits.astype(jnp.float32), {"end": end, "keys": keys, "values": values}


def _unrolled(
    config: Config, layers: Any, x: jax.Array, positions: Any, cache: Cache, mask: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Runs layer after layer; a cache is an array for each."""
    end, T = cache["end"], mask.shape[-1]
    tables = {rope: rotary_table(rope, config.head_dim, positions) for rope in set(config.ropes)}
    kept = {name: list(cache[name]) for name in ("keys", "values")}
    for i, (rope, window) in enumerate(zip(config.ropes, config.windows, strict=True)):

        def keep(*new: jax.Array, i: int = i) -> Any:
            for held, slots in zip(kept.values(), new, strict=True):
                slots = slots.astype(held[i].dtype)
                held[i] = jax.lax.dynamic_update_slice_in_dim(held[i], slots, end, 3)
                yield held[i][..., :T]

        layer = nnx.merge(_layer_graph(config), jax.tree.map(lambda leaf, i=i: leaf[i], layers))
        x = layer(x, tables[rope], _seen(mask, window, end), keep)
    return x, tuple(kept["keys"]), tuple(kept["values"])


def _scanned(
    config: Config, layers: Any, x: jax.Array, positions: Any, cache: Cache, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs the layers as a scan; the caches of all are carried, and written in place."""
    end, T = jnp.asarray(cache["end"], jnp.int32), mask.shape[-1]
    ropes = list(dict.fromkeys(config.ropes))
    each = [rotary_table(rope, config.head_dim, positions) for rope in ropes]
    tables = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    windowed = any(window is not None for window in config.windows)
    far = np.iinfo(np.int32).max
    rows = {
        "layer": layers,
        "number": np.arange(config.num_layers, dtype=np.int32),
        "rope": np.asarray([ropes.index(rope) for rope in config.ropes], np.int32),
        "window": np.asarray([far if w is None else w for w in config.windows], np.int32),
    }

    def step(carry: Any, row: Any) -> tuple[Any, None]:
        x, *held = carry

        def keep(*new: jax.Array) -> Any:
            for n, slots in enumerate(new):
                begin = (row["number"], 0, 0, 0, end)
                slots = slots[None].astype(held[n].dtype)
                held[n] = jax.lax.dynamic_update_slice(held[n], slots, begin)
                one = (1, *held[n].shape[1:-1], T)
                yield jax.lax.dynamic_slice(held[n], (row["number"], 0, 0, 0, 0), one)[0]

        which = row["rope"] if len(ropes) > 1 else 0
        table = jax.tree.map(lambda x: x[which], tables)
        seen = _seen(mask, row["window"] if windowed else None, end)
        x = nnx.merge(_layer_graph(config), row["layer"])(x, table, seen, keep)
        return (x, *held), None

    (x, keys, values), _ = jax.lax.scan(step, (x, cache["keys"], cache["values"]), rows)
    return x, keys, values


def _seen(mask: jax.Array, window: Any, end: Any) -> jax.Array:
    """The slots that each token sees through a window, int or int32 [], behind it; None: all."""
    if window is None:
        return mask
    S, T = mask.shape[-2:]
    distance = (jnp.arange(S, dtype=jnp.int32) + end)[:, None] - jnp.arange(T, dtype=jnp.int32)[
        None
    ]
    return mask & (distance < window)[None]


@functools.cache
def _layer_graph(config: Config) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Layer(config, rngs=nnx.Rngs(0), dtype=jnp.float32)))[0]


@functools.cache
def _norm_graph(config: Config) -> nnx.GraphDef:
    size, eps = config.hidden_size, config.norm_eps
    return nnx.split(nnx.eval_shape(lambda: RMSNorm(size, eps, dtype=jnp.float32)))[0]


def unrolled(unroll: bool | None = None) -> bool:
    """Whether layers run as code of their own: on a CPU, which would copy what a scan takes.

    Elsewhere they are a scan: code and compile time do not grow with their number.
    """
    return _on_cpu() if unroll is None else unroll


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def empty_cache(
    config: Config, rows: int, slots: int, dtype: Any, unroll: bool | None = None
) -> Cache:
    """Returns a cache of zeros for `rows` rows of at most `slots` tokens; see `unrolled`.

    Memory: 2 × layers × rows × key-value heads × head size × slots elements of `dtype`.
    """
    shape = (rows, config.num_kv_heads, config.head_dim, slots)
    if unrolled(unroll):
        keys, values = (
            tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers)) for _ in range(2)
        )
        return {"end": jnp.zeros((), jnp.int32), "keys": keys, "values": values}
    zeros = jnp.zeros((config.num_layers, *shape), dtype)
    return {"end": jnp.zeros((), jnp.int32), "keys": zeros, "values": zeros}


def cache_bytes(config: Config, rows: int, slots: int, dtype: Any) -> int:
    """Returns the bytes of `empty_cache(config, rows, slots, dtype)`."""
    size = rows * config.num_kv_heads * config.head_dim * slots
    return 2 * config.num_layers * size * jnp.dtype(dtype).itemsize


def abstract(config: Config, dtype: Any) -> dict[str, Any]:
    """Returns the parameters' shapes, without making them."""
    return dict(jax.eval_shape(lambda: random_params(config, nnx.Rngs(0), dtype)))
