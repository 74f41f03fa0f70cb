"""The laws of dense ε: a pure function (key, shape) → float32 of mean 0 and variance 1."""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.experts import threefry


class NoiseLaw(Protocol):
    """Draws ε for one leaf.

    Args:
      key: a typed key, used for nothing else; the law consumes it.
      shape: the leaf's shape.

    Returns:
      float32 of that shape, mean 0, variance 1. Equal keys and shapes give equal values alone,
      under jit, under vmap and on any number of devices.
    """

    def __call__(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws the noise."""
        ...


def draw_gaussian(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws independent standard normal values, float32 of `shape`.

    The values of `jax.random.normal`: the inverse distribution function of a uniform value in
    (−1, 1) made of the upper 23 bits of each word.
    """
    if not threefry.written_out(key, shape):
        return jax.random.normal(key, shape, jnp.float32)
    one, lowest = np.float32(1).view(np.uint32), np.nextafter(np.float32(-1), np.float32(0))
    mantissa = (threefry.words(key, shape) >> np.uint32(9)) | one
    unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)
    uniform = jnp.maximum(lowest, unit * (np.float32(1) - lowest) + lowest)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def draw_rademacher(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws independent signs, +1 or −1 with equal probability, float32 of `shape`.

    One random 32-bit word gives 32 signs: element i of the flattened leaf is bit i // W of word
    i % W, where W = ceil(size / 32); a set bit is −1. Integer work only, so the signs are the same
    on every backend.
    """
    size = math.prod(shape)
    words = threefry.held_words(key, -(-size // 32))
    return signs(words)[:size].reshape(shape)


def signs(words: jax.Array) -> jax.Array:
    """Unpacks uint32 [W] into float32 [32·W]: element i is −1 where bit i // W of word i % W is."""
    bits = (words[None, :] >> jnp.arange(32, dtype=jnp.uint32)[:, None]) << jnp.uint32(31)
    one = np.float32(1).view(np.uint32)
    return jax.lax.bitcast_convert_type(bits | one, jnp.float32).reshape(-1)


@dataclasses.dataclass(frozen=True)
class Family:
    """A named law: how ε is drawn, and whether leaves of equal shape share it."""

    draw: NoiseLaw
    tied: bool = False


FAMILIES: dict[str, Family] = {
    "gaussian": Family(draw_gaussian),
    "rademacher": Family(draw_rademacher),
    "tied_gaussian": Family(draw_gaussian, tied=True),
}
