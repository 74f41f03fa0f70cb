"""How ε of one leaf is drawn: the families of noise. Here those of independent elements.

ε is float32 of mean 0 and variance 1. A family knows nothing of leaves' names, of σ or of θ;
`noise.Noise` has the rest of a law. `low_rank.LowRank` is the family whose ε is a product.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.experts import threefry


class Family(Protocol):
    """How ε of one leaf is drawn, and what is known of it before. Frozen and hashable.

    Attributes:
      name: what a law calls it.
      factored: whether ε of a matrix is a product of two factors, so that a function can be
        evaluated at θ + σ·ε without building either.
    """

    name: ClassVar[str]
    factored: ClassVar[bool]

    def with_options(self, rank: int, factors: str) -> "Family":
        """Returns the family with the options of a law; refuses those that it has not."""
        ...

    def hashed(self, path: str, shape: tuple[int, ...]) -> str:
        """Returns the text whose hash is folded into a leaf's key: equal texts, equal noise."""
        ...

    def letters(self, kinds: str) -> str:
        """Returns the kind of each axis as far as ε is a product, and nothing where it is dense.

        Args:
          kinds: of a leaf's axes, `r`ows, rows that are looked up (`e`), `c`olumns, stacks (`b`).
        """
        ...

    def draw(self, key: jax.Array, shape: tuple[int, ...], letters: str = "") -> jax.Array:
        """Draws ε of one leaf.

        Args:
          key: a typed key, used for nothing else; it is consumed.
          shape: the leaf's shape.
          letters: what `letters` returned for the leaf.

        Returns:
          float32 of that shape, mean 0, variance 1. Equal keys and shapes give equal values alone,
          under jit, under vmap and on any number of devices.
        """
        ...

    def draw_factors(
        self, keys: jax.Array, shape: tuple[int, ...], letters: str
    ) -> tuple[jax.Array, jax.Array]:
        """Draws the two factors of ε for L leaves of one shape, of which `letters` are not empty.

        Args:
          keys: typed keys [L], each leaf's own.
          shape: of the leaves.
          letters: what `letters` returned for them.

        Returns:
          left, float32 [L, rank, ...]: the leaf's axes, of size 1 where the letter is `c`; right:
          of size 1 where it is `r`.
        """
        ...

    def spectral(self, rows: int, columns: int) -> float:
        """Returns the expected spectral norm of ε of one matrix."""
        ...

    def largest(self, size: int) -> float:
        """Returns the expected largest |ε| of a dense leaf of `size` elements."""
        ...

    def sample(self, rng: np.random.Generator, size: int, matrix: bool) -> np.ndarray:
        """Draws what single elements of ε are like, by numpy: to measure with, no expert's noise.

        Args:
          rng: consumed.
          size: how many.
          matrix: of leaves that have factors, where the family has any.
        """
        ...

    def options_json(self) -> dict[str, Any]:
        """Returns the options that the family has, as a JSON object."""
        ...


class Dense:
    """What families of independent elements have in common."""

    name: ClassVar[str]
    factored: ClassVar[bool] = False

    def with_options(self, rank: int, factors: str) -> Self:
        """Returns the family itself: it has no options."""
        if (rank, factors) != (1, "gaussian"):
            raise ArgumentError(
                f"rank and factors belong to noise='low_rank', not to {self.name!r}"
            )
        check_rank(rank)  # True and 1.0 equal 1
        return self

    def hashed(self, path: str, shape: tuple[int, ...]) -> str:
        """Returns the path: a leaf's noise depends on no other leaf."""
        del shape
        return path

    def letters(self, kinds: str) -> str:
        """Returns nothing: no axis has a factor."""
        del kinds
        return ""

    def draw_factors(
        self, keys: jax.Array, shape: tuple[int, ...], letters: str
    ) -> tuple[jax.Array, jax.Array]:
        """Refuses: there are none."""
        raise TypeError(f"noise of {self.name} has no factors; letters={letters!r} must be empty")

    def spectral(self, rows: int, columns: int) -> float:
        """Returns √rows + √columns, the limit for large matrices.

        The mean of matrices is below it: of 90 × 60 by 2.5 %.
        """
        return math.sqrt(rows) + math.sqrt(columns)

    def sample(self, rng: np.random.Generator, size: int, matrix: bool) -> np.ndarray:
        """Draws standard normal elements."""
        del matrix
        return rng.standard_normal(size)

    def options_json(self) -> dict[str, Any]:
        """Returns an empty object."""
        return {}


@dataclasses.dataclass(frozen=True)
class Gaussian(Dense):
    """Standard normal elements."""

    name = "gaussian"

    def draw(self, key: jax.Array, shape: tuple[int, ...], letters: str = "") -> jax.Array:
        """Draws the values of `jax.random.normal`.

        The inverse distribution function of a uniform value in (−1, 1) made of the upper 23 bits of
        each word.
        """
        del letters
        if not threefry.written_out(key, shape):
            return jax.random.normal(key, shape, jnp.float32)
        one, lowest = np.float32(1).view(np.uint32), np.nextafter(np.float32(-1), np.float32(0))
        mantissa = (threefry.words(key, shape) >> np.uint32(9)) | one
        unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)
        uniform = jnp.maximum(lowest, unit * (np.float32(1) - lowest) + lowest)
        return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)

    def draw_rows(self, keys: jax.Array, size: int) -> jax.Array:
        """Draws L rows in a loop, float32 [L, size]: each what `draw` gives for its key."""
        return jax.lax.map(lambda key: self.draw(key, (size,)), keys)

    def largest(self, size: int) -> float:
        """Returns the expected largest of so many |ε|, by quadrature; 1 of none."""
        return _largest_normal(size)


@dataclasses.dataclass(frozen=True)
class Tied(Gaussian):
    """The official code's law: leaves of equal shape get the same noise."""

    name = "tied_gaussian"

    def hashed(self, path: str, shape: tuple[int, ...]) -> str:
        """Returns the shape in words."""
        del path
        return f"shape {tuple(shape)}"


@dataclasses.dataclass(frozen=True)
class Rademacher(Dense):
    """Signs, +1 or −1 with equal probability."""

    name = "rademacher"

    def draw(self, key: jax.Array, shape: tuple[int, ...], letters: str = "") -> jax.Array:
        """Draws 32 signs from each random word, the same ones on every backend.

        Element i of the flattened leaf is bit i // W of word i % W, where W = ceil(size / 32); a
        set bit is −1. Integer work only.
        """
        del letters
        size = math.prod(shape)
        words = threefry.held_words(key, -(-size // 32))
        return _signs(words)[:size].reshape(shape)

    def draw_rows(self, keys: jax.Array, size: int) -> jax.Array:
        """Draws L rows in a loop, float32 [L, size]: each what `draw` gives for its key."""
        words = jax.lax.map(lambda key: threefry.words(key, (-(-size // 32),)), keys)
        return jax.lax.map(_signs, words)[:, :size]

    def largest(self, size: int) -> float:
        """Returns 1."""
        del size
        return 1.0

    def sample(self, rng: np.random.Generator, size: int, matrix: bool) -> np.ndarray:
        """Draws signs."""
        del matrix
        return rng.choice(np.asarray([-1.0, 1.0]), size)


def check_rank(rank: int) -> None:
    """Refuses what is no rank, a numpy integer too: a law's options are those that JSON returns."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ArgumentError(f"rank={rank!r} must be a whole number of at least 1")


def _signs(words: jax.Array) -> jax.Array:
    """Unpacks uint32 [W] into float32 [32·W]: element i is −1 where bit i // W of word i % W is."""
    bits = (words[None, :] >> jnp.arange(32, dtype=jnp.uint32)[:, None]) << jnp.uint32(31)
    one = np.float32(1).view(np.uint32)
    return jax.lax.bitcast_convert_type(bits | one, jnp.float32).reshape(-1)


@functools.lru_cache(maxsize=1024)
def _largest_normal(size: int) -> float:
    """E max |ε| = ∫ 1 − P(|ε| < x)^n dx, with P(|ε| < x) = 1 − 2 Φ(−x)."""
    from scipy.special import log_ndtr

    if size == 0:
        return 1.0
    x = np.linspace(0, 12, 24_001)
    with np.errstate(divide="ignore"):
        power = np.exp(size * np.log1p(-2 * np.exp(log_ndtr(-x))))
    return float(np.trapezoid(1 - power, x))


DENSE: dict[str, Gaussian | Rademacher] = {
    family.name: family for family in (Gaussian(), Rademacher(), Tied())
}
