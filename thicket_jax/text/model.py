"""One decoder in Flax NNX for the Llama, Mistral, Qwen2, Qwen3, OLMo-2 and OLMo-3 families.

Attribute names are the checkpoint's tensor names (`model.layers.0.self_attn.q_proj.weight`) and
weights keep its layout, [out, in], so loading and exporting are loops over names, and an expert's
noise is tied to names that everybody has.

Shapes: B rows, S new tokens, T cache slots, H heads, G query heads a key-value head, d head size.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from thicket_jax.text.config import Config
from thicket_jax.text.rope import rotary_table

Cache = dict[str, Any]
"""`end`: int32 [], slots in use; `keys` and `values`: for each layer [B, H_kv, d, T]."""

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

    def __init__(self, config: Config, layer: int, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the projections that the config names."""
        self.config, self.window = config, config.windows[layer]
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
        past: tuple[jax.Array, jax.Array] | None,
        end: jax.Array | int,
        mask: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns [B, S, D] and the layer's keys and values [B, H_kv, d, T].

        Args:
          x: [B, S, D].
          table: cosines and sines [B, S, d].
          past: this layer's keys and values, or None: T = S.
          end: slots in use before these tokens.
          mask: bool [B, S, T], the slots that each token sees.
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
        if past is not None:
            keys = jax.lax.dynamic_update_slice_in_dim(past[0], keys.astype(past[0].dtype), end, 3)
            values = jax.lax.dynamic_update_slice_in_dim(
                past[1], values.astype(past[1].dtype), end, 3
            )
        T = keys.shape[-1]
        if self.window is not None:
            slots = jnp.arange(S, dtype=jnp.int32) + end
            distance = slots[:, None] - jnp.arange(T, dtype=jnp.int32)[None]
            mask = mask & (distance < self.window)[None]
        queries = queries.reshape(B, S, config.num_kv_heads, groups, d)
        scale = config.attention_scale
        out = attend_step if S == 1 else attend
        mixed = out(queries, keys, values, mask, scale)
        return self.o_proj(mixed.reshape(B, S, config.num_heads * d).astype(x.dtype)), (
            keys,
            values,
        )


def attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float
) -> jax.Array:
    """Softmax attention as matrix products; scores and weights in float32.

    Args:
      queries: [B, S, H_kv, G, d].
      keys, values: [B, H_kv, d, T].
      mask: bool [B, S, T].
      scale: of the scores.

    Returns:
      [B, S, H_kv, G, d], in the values' dtype.
    """
    scores = jnp.einsum("bshgd,bhdt->bhgst", queries, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores * scale, _MASKED)
    weights = jax.nn.softmax(scores, -1).astype(values.dtype)
    return jnp.einsum("bhgst,bhdt->bshgd", weights, values)


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

    def __init__(self, config: Config, layer: int, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the blocks, and the norms under the names of the family."""
        self.pre = config.norm_position == "pre"
        self.self_attn = Attention(config, layer, rngs=rngs, dtype=dtype)
        self.mlp = MLP(config, rngs=rngs, dtype=dtype)
        size, eps = config.hidden_size, config.norm_eps
        if self.pre:
            self.input_layernorm = RMSNorm(size, eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(size, eps, dtype=dtype)
        if not self.pre:
            self.post_feedforward_layernorm = RMSNorm(size, eps, dtype=dtype)

    def __call__(
        self, x: jax.Array, table: Any, past: Any, end: Any, mask: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns [B, S, D] and the layer's keys and values."""
        if self.pre:
            mixed, kept = self.self_attn(self.input_layernorm(x), table, past, end, mask)
            x = x + mixed
            return x + self.mlp(self.post_attention_layernorm(x)), kept
        mixed, kept = self.self_attn(x, table, past, end, mask)
        x = x + self.post_attention_layernorm(mixed)
        return x + self.post_feedforward_layernorm(self.mlp(x)), kept


class Trunk(nnx.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the layers."""
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rngs=rngs, dtype=dtype)
        layers = [Layer(config, i, rngs=rngs, dtype=dtype) for i in range(config.num_layers)]
        self.layers = nnx.List(layers)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, dtype=dtype)


class Decoder(nnx.Module):
    """A language model: `(tokens, positions, cache, attention_mask) → (logits, cache)`.

    `nnx.split` gives its graph and its parameters; a parameter's path is its tensor's name.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any = jnp.float32):
        """Makes a model with random weights of `dtype`."""
        self.config = config
        self.model = Trunk(config, rngs=rngs, dtype=dtype)
        if not config.tied:
            self.lm_head = Linear(
                config.hidden_size, config.vocab_size, False, rngs=rngs, dtype=dtype
            )

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        cache: Cache | None,
        attention_mask: jax.Array,
        last_only: bool = False,
    ) -> tuple[jax.Array, Cache]:
        """Runs S tokens of every row.

        Args:
          tokens: int32 [B, S].
          positions: int32 [B, S], each token's position in its own row, from 0.
          cache: what `empty_cache`, `grown` or an earlier call returned; None starts one of S
            slots.
          attention_mask: bool [B, S, T], the slots that each token sees (S of them without a
            cache); causality is the caller's, sliding windows are the model's.
          last_only: return the logits of the last token alone, [B, 1, V].

        Returns:
          Logits, float32 [B, S, V], and the cache with these tokens in it.
        """
        x = self.model.embed_tokens.weight[...][tokens]
        ropes = self.config.ropes
        tables = {
            rope: rotary_table(rope, self.config.head_dim, positions)
            for rope in dict.fromkeys(ropes)
        }
        end: Any = 0 if cache is None else cache["end"]
        keys, values = [], []
        for i, layer in enumerate(self.model.layers):
            past = None if cache is None else (cache["keys"][i], cache["values"][i])
            x, kept = layer(x, tables[ropes[i]], past, end, attention_mask)
            keys.append(kept[0])
            values.append(kept[1])
        if last_only:
            x = x[:, -1:]
        x = self.model.norm(x)
        head = self.model.embed_tokens if self.config.tied else self.lm_head
        logits = jnp.einsum(
            "bsi,oi->bso", x, head.weight[...], preferred_element_type=jnp.float32
        ).astype(jnp.float32)
        end = jnp.asarray(end + tokens.shape[1], jnp.int32)
        return logits, {"end": end, "keys": tuple(keys), "values": tuple(values)}


def empty_cache(config: Config, rows: int, slots: int, dtype: Any) -> Cache:
    """Returns a cache of zeros for `rows` rows of at most `slots` tokens.

    Memory: 2 × layers × rows × key-value heads × head size × slots elements of `dtype`.
    """
    shape = (rows, config.num_kv_heads, config.head_dim, slots)
    zeros = tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers))
    return {"end": jnp.zeros((), jnp.int32), "keys": zeros, "values": zeros}


def grown(cache: Cache, slots: int) -> Cache:
    """Returns the cache with room for `slots` tokens a row."""

    def grow(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, slots - x.shape[-1])))

    keys, values = (tuple(map(grow, cache[name])) for name in ("keys", "values"))
    return {"end": cache["end"], "keys": keys, "values": values}


def cache_bytes(config: Config, rows: int, slots: int, dtype: Any) -> int:
    """Returns the bytes of `empty_cache(config, rows, slots, dtype)`."""
    size = rows * config.num_kv_heads * config.head_dim * slots
    return 2 * config.num_layers * size * jnp.dtype(dtype).itemsize


def abstract(config: Config, dtype: Any) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns a model's graph and its parameters as shapes, without making them."""
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype))
    graph, shapes = nnx.split(model)
    return graph, shapes
