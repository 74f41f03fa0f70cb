"""The words of threefry2x32 as plain integer arithmetic, which a compiler fuses into its use.

`jax.random.bits` draws the same words; on a CPU it does so in a loop of its own, round by round
through memory, and takes longer than the add that the noise is for.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def written_out(key: jax.Array, shape: tuple[int, ...]) -> bool:
    """Whether `words` draws by the arithmetic of this file."""
    return str(jax.random.key_impl(key)) == "threefry2x32" and math.prod(shape) < 2**32


def held_words(key: jax.Array, count: int) -> jax.Array:
    """Draws uint32 [count], the words of `words`, as an array that no later use draws again.

    It comes out of a loop over two halves: what a loop returns is an array, while a generator that
    is fused into its uses would run once for each of them.
    """
    if not written_out(key, (count,)) or count < 2:
        return words(key, (count,))
    half = -(-count // 2)
    starts = np.asarray([0, half], np.uint32)
    return jax.lax.map(lambda start: words(key, (half,), start), starts).reshape(-1)[:count]


def words(key: jax.Array, shape: tuple[int, ...], start: jax.Array | int = 0) -> jax.Array:
    """Draws uint32 of `shape`: what `jax.random.bits(key, shape)` draws from partitionable keys.

    Word i of the flattened shape is the exclusive or of the two words of threefry2x32 (Salmon and
    others, 2011, "Parallel random numbers: as easy as 1, 2, 3") on the counter (0, i), so that any
    part of them can be drawn alone, by any device.

    Args:
      key: typed key; of another implementation than threefry2x32, `jax.random.bits` draws.
      shape: of the words.
      start: number of the first one, uint32; other implementations have no other than 0.
    """
    if not written_out(key, shape):
        return jax.random.bits(key, shape, jnp.uint32)
    parts = jax.random.key_data(key)
    low = jax.lax.iota(jnp.uint32, math.prod(shape)) + jnp.uint32(start)
    first, second = _block(parts[0], parts[1], jnp.zeros_like(low), low)
    return (first ^ second).reshape(shape)


def fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    """Returns `jax.random.fold_in(key, data)`: a typed key [] of any implementation.

    Args:
      key: typed key [].
      data: uint32 [].
    """
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return jax.random.fold_in(key, data)
    parts = jax.random.key_data(key)
    folded = _block(parts[0], parts[1], jnp.zeros_like(data), data)
    return jax.random.wrap_key_data(jnp.stack(folded), impl="threefry2x32")


@functools.partial(jax.jit, inline=True)
def _block(k0: jax.Array, k1: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple:
    """Encrypts the counters (x0, x1) under the key (k0, k1): twenty rounds."""
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(distance)) | (x1 >> np.uint32(32 - distance))
            x1 = x0 ^ x1
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1
