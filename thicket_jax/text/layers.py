"""The parts of a decoder's layer, as Flax modules whose attributes have the checkpoint's names.

Shapes: B rows, S new tokens, T cache slots, D model size, H heads, G query heads a key-value head,
d head size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from thicket_jax.text.attention import attend, attend_step, rotate
from thicket_jax.text.config import Config

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
