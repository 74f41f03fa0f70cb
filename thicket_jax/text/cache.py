"""Keys and values of the tokens so far: made once at their full size, and written in place."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from thicket_jax.text.config import Config

Cache = dict[str, Any]
"""`end`: int32 [], the slot of the next token; `keys` and `values`: [L, B, H_kv, d, T], or a tuple
of L arrays where layers are unrolled."""


@dataclasses.dataclass(frozen=True)
class Around:
    """What is around the slots of a cache.

    Attributes:
      shared: `keys` and `values` of one row, [L, 1, H_kv, d, F] or a tuple of L, that come before
        every row; {} for none.
      ring: whether the first slot comes after the last.
      length: tokens of the longest text, which some ropes ask for; None: as many as slots.
    """

    shared: dict[str, Any] = dataclasses.field(default_factory=dict)
    ring: bool = False
    length: int | None = None

    @property
    def prefix(self) -> int:
        """Number of tokens that all rows share, F."""
        return jax.tree.leaves(self.shared)[0].shape[-1] if self.shared else 0


def unrolled(unroll: bool | None = None) -> bool:
    """Whether layers run as code of their own: on a CPU, which would copy what a scan takes.

    Elsewhere they are a scan: code and compile time do not grow with their number.
    """
    return on_cpu() if unroll is None else unroll


def on_cpu() -> bool:
    """Whether programs run on a CPU."""
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
    zeros = laid(jnp.zeros((config.num_layers, *shape), dtype))
    return {"end": jnp.zeros((), jnp.int32), "keys": zeros, "values": zeros}


def laid(cache: jax.Array) -> jax.Array:
    """Returns keys or values, [L, B, H, d, T], in one order in memory, slots last, wherever made.

    Compilers for accelerators choose an order for each loop that suits its products: prefill and
    decoding then differ, and all caches are copied between them, padded where d is below the
    hardware's 128. Arrays of single layers, and those on a CPU, are left as they are.
    """
    if cache.ndim < 5 or on_cpu():
        return cache
    order = Layout(major_to_minor=tuple(range(cache.ndim)))
    return with_layout_constraint(cache, order)


def cache_bytes(config: Config, rows: int, slots: int, dtype: Any) -> int:
    """Returns the bytes of `empty_cache(config, rows, slots, dtype)`."""
    size = rows * config.num_kv_heads * config.head_dim * slots
    return 2 * config.num_layers * size * jnp.dtype(dtype).itemsize
