"""Rotary positions: the record of how, and the cosines and sines.

Rotary embedding: Su et al. 2021, "RoFormer". Scalings: linear (position interpolation, Chen et
al. 2023), yarn (Peng et al. 2023, sections 3.2 to 3.4), llama3 (Llama 3.1), longrope (Ding et al.
2024, as Phi-3 has it).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("default", "linear", "llama3", "yarn", "longrope")
UNROTATED = "none"
"""The kind of a layer that turns nothing (NoPE)."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """How positions turn queries and keys, every default resolved.

    The fields after `factor` belong to llama3 (`original_max_positions`, `low_freq_factor`,
    `high_freq_factor`), yarn (the others, and `original_max_positions`) and longrope
    (`original_max_positions`, `attention_factor` and the last two).
    """

    kind: str  # one of KINDS, or UNROTATED
    theta: float  # base of the wavelengths
    factor: float = 1.0  # by how much the scaled wavelengths are stretched
    original_max_positions: int = 0  # positions of the pretraining
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # turns within the original positions above which nothing is scaled
    beta_slow: float = 1.0  # turns below which all of the factor is applied
    truncate: bool = True  # whether the two bounds are rounded to whole dimensions
    attention_factor: float = 1.0  # cosines and sines are multiplied by it
    share: float = 1.0  # of a head that is turned, its first part
    short_factors: tuple[float, ...] = ()  # stretch of each wavelength in texts that are no longer
    long_factors: tuple[float, ...] = ()  # than the original positions, and in those that are


def rotary_size(rope: Rope, head_dim: int) -> int:
    """Returns how many of a head's numbers are turned."""
    return int(head_dim * rope.share)


def inverse_frequencies(rope: Rope, head_dim: int, slots: int = 0) -> np.ndarray:
    """Returns radians per position, float32 [rotary size / 2], the fastest first.

    Computed on the host in the order of transformers' own float32 arithmetic; `slots` as in
    `rotary_table`.
    """
    head_dim = rotary_size(rope, head_dim)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    periods = np.power(np.float64(rope.theta), exponents.astype(np.float64)).astype(np.float32)
    plain = np.float32(1) / periods
    factor = np.float32(rope.factor)
    if rope.kind == UNROTATED:
        return np.zeros_like(plain)
    if rope.kind == "longrope":
        long = slots > rope.original_max_positions
        stretch = np.asarray(rope.long_factors if long else rope.short_factors, np.float32)
        return np.float32(1) / (stretch * periods)
    if rope.kind == "linear":
        return plain / factor
    if rope.kind == "llama3":
        return _llama3(rope, plain)
    if rope.kind == "yarn":
        unscaled = np.float32(1) - _ramp(rope, head_dim)
        slowed = np.float32(1) / (factor * periods)
        return slowed * (np.float32(1) - unscaled) + plain * unscaled
    return plain


def _llama3(rope: Rope, plain: np.ndarray) -> np.ndarray:
    """Short wavelengths as they are, long ones stretched, a smooth passage between."""
    factor, original = np.float32(rope.factor), np.float32(rope.original_max_positions)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    wavelengths = np.float32(2 * math.pi) / plain
    share = (original / wavelengths - np.float32(low)) / np.float32(high - low)
    passage = (np.float32(1) - share) * plain / factor + share * plain
    long = wavelengths > np.float32(rope.original_max_positions / low)
    short = wavelengths < np.float32(rope.original_max_positions / high)
    return np.where(long, plain / factor, np.where(short, plain, passage))


def _ramp(rope: Rope, head_dim: int) -> np.ndarray:
    """How much of yarn's factor each frequency takes: 0 for the fast ones, 1 for the slow."""

    def dimension(turns: float) -> float:
        period = rope.original_max_positions / (turns * 2 * math.pi)
        return head_dim * math.log(period) / (2 * math.log(rope.theta))

    start, end = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        start, end = math.floor(start), math.ceil(end)
    start, end = max(start, 0), min(end, head_dim - 1)
    if start == end:
        end += 0.001  # a step instead of a division by zero
    steps = np.arange(head_dim // 2, dtype=np.float32) - np.float32(start)
    return np.clip(steps / np.float32(end - start), 0, 1)


def rotary_table(
    rope: Rope, head_dim: int, positions: jax.Array, slots: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Returns the cosines and sines that turn queries and keys.

    With cos and sin, a head x is turned into x * cos + [-x₂, x₁] * sin, x₁ and x₂ its halves (of
    its first part, where the rope's share is below 1).

    Args:
      rope: static.
      head_dim: the rotary size is even.
      positions: int [...], 0 for a sequence's first token.
      slots: tokens that there is room for. Longrope has one set of wavelengths for short texts and
        one for long ones. Keys that are cached are not turned again when a text grows, so that the
        room decides, and not the length so far.

    Returns:
      (cos, sin), each float32 [..., rotary size], its second half equal to its first; multiplied by
      the attention factor.

    >>> cos, sin = rotary_table(Rope("default", 10000.0), 4, jnp.arange(3))
    >>> cos.shape, round(float(sin[1, 2]), 4), round(float(sin[1, 3]), 4)
    ((3, 4), 0.8415, 0.01)
    """
    frequencies = inverse_frequencies(rope, head_dim, slots).reshape((1,) * positions.ndim + (-1,))
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    angles = jnp.concatenate([angles, angles], axis=-1)
    scale = jnp.float32(rope.attention_factor)
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale
