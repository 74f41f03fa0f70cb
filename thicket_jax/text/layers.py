"""The parts of a decoder's layer, as Flax modules whose attributes have the checkpoint's names.

Shapes: B rows, S new tokens, T cache slots, D model size, H heads, G query heads a key-value head,
d head size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from thicket_jax.text.attention import Attended, Masks, attend, attend_step, rotate
from thicket_jax.text.config import Config, Mixture
from thicket_jax.text.parts import parts

_HELD = 2**26  # bytes of what a group of a mixture's experts computes, if there are more experts

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class Linear(nnx.Module):
    """x·Wᵀ + b, with W [out, in], or the weights of several, [..., out, in]."""

    def __init__(
        self,
        inside: int,
        outside: int,
        bias: bool,
        *,
        stack: tuple[int, ...] = (),
        rngs: nnx.Rngs,
        dtype: Any,
    ):
        """Draws a random weight, or `stack` of them; a checkpoint's is put in its place."""
        weight = jax.random.normal(rngs.params(), (*stack, outside, inside), dtype)
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
    """x / rms(x) · (w + offset) over the last axis, in float32."""

    def __init__(self, config: Config, size: int, *, dtype: Any):
        """Starts as a multiplication by one."""
        self.eps, self.offset = config.norm_eps, config.norm_offset
        self.weight = nnx.Param(jnp.full((size,), 1 - self.offset, dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array like x."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        weight = self.weight[...].astype(jnp.float32)
        weight = weight + self.offset if self.offset else weight
        return (wide * _along(weight, x)).astype(x.dtype)


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
        self.ends = (wide, wide + narrow)  # of queries and of keys in what is fused
        if config.fused:
            self.qkv_proj = Linear(D, wide + 2 * narrow, config.qkv_bias, **options)
        else:
            self.q_proj = Linear(D, wide, config.qkv_bias, **options)
            self.k_proj = Linear(D, narrow, config.qkv_bias, **options)
            self.v_proj = Linear(D, narrow, config.qkv_bias, **options)
        self.o_proj = Linear(wide, D, config.output_bias, **options)
        if config.qk_norm != "none":
            full = config.qk_norm == "full"
            self.q_norm = RMSNorm(config, wide if full else d, dtype=dtype)
            self.k_norm = RMSNorm(config, narrow if full else d, dtype=dtype)

    def __call__(
        self,
        x: jax.Array,
        table: tuple[jax.Array, jax.Array],
        mask: Masks,
        keep: Callable[[jax.Array, jax.Array], tuple[Attended, Attended]],
    ) -> jax.Array:
        """Returns [B, S, D].

        Args:
          x: [B, S, D].
          table: cosines and sines [B, S, d].
          mask: the slots that each token sees.
          keep: takes the new keys and values [B, H_kv, d, S]; returns all that is attended.
        """
        config = self.config
        B, S, _ = x.shape
        d, groups = config.head_dim, config.num_heads // config.num_kv_heads
        if config.fused:
            queries, keys, values = jnp.split(self.qkv_proj(x), self.ends, -1)
        else:
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
        all_keys, all_values = keep(keys, values)
        queries = queries.reshape(B, S, config.num_kv_heads, groups, d)
        out = attend_step if S == 1 else attend
        scale, softcap = config.attention_scale, config.attention_softcap
        mixed = out(queries, all_keys, all_values, mask, scale, softcap)
        return self.o_proj(mixed.reshape(B, S, config.num_heads * d).astype(x.dtype))


class MLP(nnx.Module):
    """Gated feed-forward: down(act(gate(x)) · up(x))."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the three projections, or two where the first two are one matrix."""
        D, F, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        options: dict[str, Any] = {"rngs": rngs, "dtype": dtype}
        self.activation, self.fused = config.activation, config.fused
        if self.fused:
            self.gate_up_proj = Linear(D, 2 * F, bias, **options)
        else:
            self.gate_proj = Linear(D, F, bias, **options)
            self.up_proj = Linear(D, F, bias, **options)
        self.down_proj = Linear(F, D, bias, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, S, D]."""
        if self.fused:
            gate, up = jnp.split(self.gate_up_proj(x), 2, -1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(ACTIVATIONS[self.activation](gate) * up)


class Experts(nnx.Module):
    """The weights of E feed-forwards, [E, out, in], under the names of one."""

    def __init__(self, config: Config, mixture: Mixture, **options: Any):
        """Draws random weights."""
        D, F = config.hidden_size, mixture.size
        for name, (i, o) in zip(config.projections, ((D, F), (D, F), (F, D)), strict=True):
            setattr(self, name, Linear(i, o, False, stack=(mixture.count,), **options))


class MoE(nnx.Module):
    """A mixture of E gated feed-forwards: the sum over the few that a router gives a token to.

    All experts see all tokens, and the router's weights of those that were not chosen are 0. So
    their weights are read once, and the shapes do not depend on the routes; the arithmetic is E
    over the number of chosen ones times as much as is needed.
    """

    def __init__(self, config: Config, mixture: Mixture, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the router and the experts."""
        self.config, self.mixture = config, mixture
        self.gate = Linear(config.hidden_size, mixture.count, False, rngs=rngs, dtype=dtype)
        self.experts = Experts(config, mixture, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, S, D].

        Memory: experts go through in groups, so that [E, B·S, F + D] of a long prompt is never
        held.
        """
        tokens = x.reshape(-1, x.shape[-1])
        E, held = self.mixture.count, 4 * len(tokens) * (self.mixture.size + x.shape[-1])
        G = parts(E, E * held, _HELD)
        weights = [getattr(self.experts, name).weight[...] for name in self.config.projections]
        weights.append(self._shares(tokens).T)
        if G == 1:
            total = self._some(tokens, *weights)
        else:
            total, _ = jax.lax.scan(
                lambda total, group: (total + self._some(tokens, *group), None),
                jnp.zeros(tokens.shape, jnp.float32),
                [part.reshape(G, E // G, *part.shape[1:]) for part in weights],
            )
        return total.astype(x.dtype).reshape(x.shape)

    def _shares(self, tokens: jax.Array) -> jax.Array:
        """Each expert's weight for each token, float32 [N, E]: 0 for most."""
        scores = jax.nn.softmax(self.gate(tokens).astype(jnp.float32), -1)
        best, chosen = jax.lax.top_k(scores, self.mixture.chosen)
        if self.mixture.normalized:
            best = best / best.sum(-1, keepdims=True)
        rows = jax.nn.one_hot(chosen, self.mixture.count, dtype=jnp.float32)
        return (rows * best[..., None]).sum(-2)

    def _some(
        self, tokens: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, shares: jax.Array
    ) -> jax.Array:
        """What a group of experts [g, out, in] adds, float32 [N, D]; shares [g, N]."""
        gates = jnp.einsum("ni,eoi->eno", tokens, gate)
        hidden = ACTIVATIONS[self.config.activation](gates)
        hidden = hidden * jnp.einsum("ni,eoi->eno", tokens, up)
        hidden = (hidden.astype(jnp.float32) * shares[..., None]).astype(tokens.dtype)
        return jnp.einsum("eni,eoi->eno", hidden, down).astype(jnp.float32).sum(0)


# By `Config.norm_position`, the names of the norms before and after the attention, and before and
# after the feed-forward.
_NORMS = {
    "pre": ("input_layernorm", None, "post_attention_layernorm", None),
    "post": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}


class Layer(nnx.Module):
    """Attention and feed-forward with their norms: before them, on what they return, or both."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs, dtype: Any):
        """Makes the blocks, and the norms under the names of the family."""
        self.norms, self.multiplier = _NORMS[config.norm_position], config.residual_multiplier
        self.self_attn = Attention(config, rngs=rngs, dtype=dtype)
        self.block = config.block
        mixture = config.mixture
        options: dict[str, Any] = {"rngs": rngs, "dtype": dtype}
        feed = MLP(config, **options) if mixture is None else MoE(config, mixture, **options)
        setattr(self, self.block, feed)
        for name in filter(None, self.norms):
            setattr(self, name, RMSNorm(config, config.hidden_size, dtype=dtype))

    def __call__(self, x: jax.Array, table: Any, mask: Masks, keep: Any) -> jax.Array:
        """Returns [B, S, D]; takes what the attention takes."""
        x = self._added(x, lambda x: self.self_attn(x, table, mask, keep), *self.norms[:2])
        return self._added(x, getattr(self, self.block), *self.norms[2:])

    def _added(self, x: jax.Array, block: Any, before: str | None, after: str | None) -> jax.Array:
        """x plus what a block makes of it, between the norms of these names."""
        out = block(x if before is None else getattr(self, before)(x))
        out = out if after is None else getattr(self, after)(out)
        if self.multiplier != 1:
            out = (out.astype(jnp.float32) * self.multiplier).astype(out.dtype)
        return x + out
