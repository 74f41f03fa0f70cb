"""ε = A Bᵀ/√rank of a matrix: its factors, and their product."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.experts import threefry
from thicket_jax.experts.laws import draw_gaussian, signs
from thicket_jax.experts.noise import Noise


def outer(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns Σ_k left_k·right_k/√rank of factors [rank, ...], summed in the order of k."""
    rank, total = left.shape[0], left[0] * right[0]
    if rank <= 8:
        for k in range(1, rank):
            total = total + left[k] * right[k]
    else:
        total = jax.lax.fori_loop(1, rank, lambda k, sum_: sum_ + left[k] * right[k], total)
    return total * np.float32(1 / math.sqrt(rank))


def draw_factors(
    noise: Noise, keys: jax.Array, shape: tuple[int, ...], letters: str
) -> tuple[jax.Array, jax.Array]:
    """Draws the factors A and B of L leaves of one shape (EGGROLL, section 3).

    Args:
      noise: the law.
      keys: typed keys [L], each leaf's own.
      shape: of the leaves.
      letters: the kind of each axis.

    Returns:
      left, float32 [L, rank, ...]: the leaf's axes, of size 1 where the letter is `c`; right: of
      size 1 where it is `r`. Of a leaf's n values, left's first, the first ⌈n/2⌉ are drawn from
      fold_in(key, 0) and the others from fold_in(key, 1).
    """
    L = keys.shape[0]
    sides = [
        (noise.rank, *(1 if kind == other else n for n, kind in zip(shape, letters, strict=True)))
        for other in "cr"
    ]
    sizes = [math.prod(side) for side in sides]
    half = -(-sum(sizes) // 2)
    # Loops, so that what is drawn is held: fused into its uses, it would be drawn again for each.
    parts = np.tile(np.arange(2, dtype=np.uint32), L)
    each = jax.lax.map(lambda x: threefry.fold_in(*x), (jnp.repeat(keys, 2), parts))
    if noise.factors == "rademacher":
        words = jax.lax.map(lambda key: threefry.words(key, (-(-half // 32),)), each)
        values = jax.lax.map(signs, words)[:, :half]
    else:
        values = jax.lax.map(lambda key: draw_gaussian(key, (half,)), each)
    values = values.reshape(L, 2 * half)
    left, right = values[:, : sizes[0]], values[:, sizes[0] : sum(sizes)]
    return left.reshape(L, *sides[0]), right.reshape(L, *sides[1])
