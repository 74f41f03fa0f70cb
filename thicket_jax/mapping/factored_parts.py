"""A matrix plus a low-rank step that is kept apart from it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from thicket_jax.experts.low_rank import outer
from thicket_jax.experts.perturbation import sum_dtype
from thicket_jax.mapping.interpreter import bind


@dataclasses.dataclass(frozen=True)
class Parts:
    """W + step·ε, ε = Σ_k left_k·right_k/√rank.

    Attributes:
      base: W, [s1, ..., sn].
      left: float32 [rank, ...], of size 1 along axes of kind `c` and `1`.
      right: float32 [rank, ...], of size 1 along axes of kind `r` and `1`.
      step: float32 [].
      kinds: a letter for each axis: `r`ow, `c`olumn, `b` both (a stack), `1` neither (broadcast).
    """

    base: jax.Array
    left: jax.Array
    right: jax.Array
    step: jax.Array
    kinds: str

    @property
    def rank(self) -> int:
        """The number of terms."""
        return int(self.left.shape[0])

    @property
    def factor(self) -> jax.Array:
        """What Σ_k left_k·right_k is multiplied by: float32 []."""
        return self.step * np.float32(1 / math.sqrt(self.rank))

    def built(self) -> jax.Array:
        """Returns the sum, in float32 and rounded once to W's dtype, as `apply_noise` does."""
        wide = sum_dtype(self.base.dtype)
        epsilon = outer(self.left, self.right)
        moved = self.base.astype(wide) + self.step.astype(wide) * epsilon.astype(wide)
        return moved.astype(self.base.dtype)

    def unstacked(self) -> tuple[Any, Callable[[Any], "Parts"]]:
        """Returns (arrays with the stack's axis first, function from their slices to Parts)."""
        whole = [spans(self.kinds[0], side) for side in "lr"]
        factors = [self.left, self.right]
        moved = [jnp.moveaxis(x, 1, 0) if s else None for x, s in zip(factors, whole, strict=True)]
        fixed = [None if s else x[:, 0] for x, s in zip(factors, whole, strict=True)]

        def rebuild(slices: Any) -> Parts:
            base, found = slices
            left, right = (x if f is None else f for x, f in zip(found, fixed, strict=True))
            return Parts(base, left, right, self.step, self.kinds[1:])

        return (self.base, moved), rebuild

    def view(self, base: Any, change: Callable[[Any, str], Any], kinds: str) -> "Parts":
        """Returns a view: `change(factor, side)` for both factors, side `l` or `r`."""
        left, right = change(self.left, "l"), change(self.right, "r")
        return Parts(base, left, right, self.step, kinds)


def spans(kind: str, side: str) -> bool:
    """Whether the left (`l`) or right (`r`) factor has the whole of an axis of this kind."""
    return kind in ("rb" if side == "l" else "cb")


Found = list[Any] | None
Rule = Callable[[Parts, int, list[Any], jex.JaxprEqn], Found]


def on_base(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> list[Any]:
    """Applies the operation to W alone."""
    return bind(equation, [parts.base if i == position else x for i, x in enumerate(others)])
