"""A matrix plus a low-rank step that is kept apart from it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from thicket_jax.experts.low_rank import outer
from thicket_jax.experts.perturbation import is_narrow, sum_dtype
from thicket_jax.mapping.interpreter import bind


@dataclasses.dataclass(frozen=True)
class Parts:
    """W + step·ε, ε = Σ_k left_k·right_k/√rank.

    Attributes:
      base: W, [s1, ..., sn].
      left: float32 [rank, ...], of size 1 along axes of kind `c` and `1`.
      right: float32 [rank, ...], of size 1 along axes of kind `r` and `1`.
      step: float32 [], or [L] (or [L, E]) of a stack of slices that have steps of their own.
      kinds: a letter for each axis: `r`ow, `c`olumn, `b` both (a stack), `1` neither (broadcast).
      rounded: whether the step is rounded where W is converted to 16 bits.
    """

    base: jax.Array
    left: jax.Array
    right: jax.Array
    step: jax.Array
    kinds: str
    rounded: bool = True

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
        return self.summed().astype(self.base.dtype)

    def summed(self) -> jax.Array:
        """Returns the sum in float32, or in float64 where W is."""
        wide = sum_dtype(self.base.dtype)
        epsilon = outer(self.left, self.right)
        return self.base.astype(wide) + self.step.astype(wide) * epsilon.astype(wide)

    def unstacked(self) -> tuple[Any, Callable[[Any], "Parts"]]:
        """Returns (arrays with the stack's axis first, function from their slices to Parts)."""
        whole = [spans(self.kinds[0], side) for side in "lr"]
        factors = [self.left, self.right]
        moved = [jnp.moveaxis(x, 1, 0) if s else None for x, s in zip(factors, whole, strict=True)]
        fixed = [None if s else x[:, 0] for x, s in zip(factors, whole, strict=True)]

        def rebuild(slices: Any) -> Parts:
            base, found = slices
            left, right = (x if f is None else f for x, f in zip(found, fixed, strict=True))
            return Parts(base, left, right, self.step, self.kinds[1:], self.rounded)

        return (self.base, moved), rebuild

    def with_axis(self) -> "Parts":
        """Returns the view with an axis of size 1 before the others."""
        left, right = (x[:, None] for x in (self.left, self.right))
        return Parts(self.base[None], left, right, self.step, "1" + self.kinds, self.rounded)

    def folded(self) -> "Parts":
        """Returns the same with the step in the left factor, and a step of 1 beside it."""
        rest = self.left.ndim - 1 - self.step.ndim
        steps = (
            self.step.reshape(1, *self.step.shape, *(1,) * rest) if self.step.ndim else self.step
        )
        return dataclasses.replace(self, left=self.left * steps, step=jnp.ones((), jnp.float32))

    def view(self, base: Any, change: Callable[[Any, str], Any], kinds: str) -> "Parts":
        """Returns a view: `change(factor, side)` for both factors, side `l` or `r`."""
        left, right = change(self.left, "l"), change(self.right, "r")
        return Parts(base, left, right, self.step, kinds, self.rounded)


def spans(kind: str, side: str) -> bool:
    """Whether the left (`l`) or right (`r`) factor has the whole of an axis of this kind."""
    return kind in ("rb" if side == "l" else "cb")


Found = list[Any] | None
Rule = Callable[[Parts, int, list[Any], jex.JaxprEqn], Found]


def on_base(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> list[Any]:
    """Applies the operation to W alone."""
    return bind(equation, [parts.base if i == position else x for i, x in enumerate(others)])


def product_on_base(
    parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn
) -> jax.Array:
    """Applies a product to W alone; what would be rounded to 16 bits comes in float32.

    Rounded on its own, it would swallow a step of less than half a unit in its last place.
    """
    p = equation.params
    named = isinstance(p["precision"], lax.DotAlgorithm | lax.DotAlgorithmPreset)
    operands = {jnp.asarray(x).dtype for x in others if x is not None} | {parts.base.dtype}
    if is_narrow(equation.outvars[0].aval.dtype) and len(operands) == 1 and not named:  # type: ignore[attr-defined]
        equation = equation.replace(params={**p, "preferred_element_type": np.dtype(np.float32)})
    (out,) = on_base(parts, position, others, equation)
    return out
