"""A leaf that stays W plus a low-rank step through a function, and a stack of such leaves."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from thicket_jax.experts import rounding
from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.perturbation import is_narrow
from thicket_jax.mapping.factored_parts import Parts
from thicket_jax.mapping.factored_rules import RULES
from thicket_jax.mapping.interpreter import Special, bind, sliced_row

_LOG = logging.getLogger("thicket_jax")


@dataclasses.dataclass(frozen=True)
class BuildWarning:
    """Names a leaf that had to be built, once."""

    path: str
    named: set[str] | None
    plan: Plan | None = None

    def give(self, array: jax.Array, why: str, rounds: bool) -> None:
        """Says so; `rounds`: to 16 bits, under a law that otherwise does not."""
        leaf = f"{self.path} {why}"
        if self.named is None or leaf in self.named:
            return
        self.named.add(leaf)
        share = rounding.measured(self.plan, self.path) if rounds and self.plan else None
        lost = f", and its step is rounded to {array.dtype} there" if rounds else ""
        lost += "" if share is None else f", which moves {100 * share:.2g} % of its weights"
        if why == "convert_element_type":
            reason = "a conversion to fewer bits rounds W and the step together"
        else:
            reason = f"{why!r} has no rule for low-rank noise"
        _LOG.warning(
            "leaf %r %s is built for every expert of a block (%s bytes each): %s%s",
            self.path,
            list(array.shape),
            f"{array.nbytes:,}",
            reason,
            lost,
        )


class Factored(Special):
    """W + step·ε, ε of low rank, not built unless an operation has no rule for it."""

    def __init__(self, parts: Parts, warning: BuildWarning, source: Special | None = None) -> None:
        """Holds the parts; `source` is the value that this one is a view of, in this scope."""
        self.parts, self.warning, self.source = parts, warning, source
        self.base = parts.base
        # Built before a loop, a step would be rounded with W where the loop's body need not.
        self.hoisted = parts.rounded
        self.held: jax.Array | None = None
        self.built_for = None

    def fresh(self) -> "Factored":
        """Returns the value without what was built outside, unless it is built already."""
        if self.held is not None:
            copy = Factored(self.parts, self.warning)
            copy.held = self.held
            return copy
        return Factored(self.parts, self.warning)

    def build(self, why: str) -> jax.Array:
        """Returns θ + σ·ε of the leaf in its dtype, as `perturb` computes it up to rounding."""
        rounds = not self.parts.rounded and is_narrow(self.base.dtype)
        return self._summed(why, rounds).astype(self.base.dtype)

    def _summed(self, why: str, rounds: bool = False) -> jax.Array:
        """Returns θ + σ·ε of the leaf in float32, or in float64 where it is."""
        if self.held is None:
            self.warning.give(self.base, why, rounds)
            self.held = self.parts.summed()
            self.built_for = why
            if self.source is not None:
                self.source.built_for = why
        return self.held

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """Returns the stacks to scan over; a factor that does not span axis 0 is not scanned."""
        if self.held is not None and self.parts.rounded:
            return self.build("scan"), lambda array: array
        arrays, rebuild = self.parts.unstacked()
        return arrays, lambda slices: Factored(rebuild(slices), self.warning)

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Applies a rule, if the operation has one for these operands."""
        name = equation.primitive.name
        rule, built = RULES.get(name), self.held is not None and self.parts.rounded
        if rule is None or built or sum(x is self for x in values) > 1:
            return None
        position = next(i for i, x in enumerate(values) if x is self)
        # Only one operand can stay implicit; the others are arrays.
        others = [x.build(name) if isinstance(x, Special) and x is not self else x for x in values]
        others = [None if x is self else x for x in others]
        found = rule(self.parts, position, others, equation)
        if found is None and name == "convert_element_type" and not self.parts.rounded:
            return bind(equation, [self._summed(name)])  # to 8 bits, not by way of 16
        if found is None:
            return None
        return [self._view(x) if isinstance(x, Parts) else x for x in found]

    def _view(self, parts: Parts) -> "Factored":
        return Factored(parts, self.warning, self.source or self)


class FactoredStack(Special):
    """A `Stack` of matrices, each with a low-rank step of its own.

    A scan, or an index, takes it apart into `Factored` slices; for all else it is one value.
    """

    def __init__(self, parts: Parts, warning: BuildWarning, whole: Callable[[], jax.Array]) -> None:
        """Holds the parts, whose step is [L] or more, and what builds the whole stack."""
        self.parts, self.warning, self.whole = parts, warning, whole
        self.base, self.hoisted = parts.base, parts.rounded
        self.held: jax.Array | None = None
        self.built_for = None

    def fresh(self) -> "FactoredStack":
        """Returns the value without what was built outside, unless it is built already."""
        copy = FactoredStack(self.parts, self.warning, self.whole)
        copy.held = self.held
        return copy

    def build(self, why: str) -> jax.Array:
        """Returns the stack of θ + σ·ε in its dtype, the same bits as in `perturb`."""
        if self.held is None:
            rounds = not self.parts.rounded and is_narrow(self.base.dtype)
            self.warning.give(self.base, why, rounds)
            self.held, self.built_for = self.whole().astype(self.base.dtype), why
        return self.held

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """Returns the slices to scan over."""
        if self.held is not None and self.parts.rounded:
            return self.held, lambda array: array
        left, right = (jnp.moveaxis(x, 1, 0) for x in (self.parts.left, self.parts.right))
        return (self.base, left, right, self.parts.step), self._slice

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Takes one slice, or applies the rules for a leaf that is one value."""
        if self.held is not None and self.parts.rounded:
            return None
        n = sliced_row(equation)
        if n is not None:
            one = self._slice(jax.tree.map(lambda x: x[n], self.unstack()[0]))
            return [Factored(one.parts.with_axis(), self.warning)]
        whole = Factored(self.parts.folded(), self.warning, self)
        return whole.apply(equation, [whole if x is self else x for x in values])

    def _slice(self, arrays: tuple) -> Factored:
        base, left, right, step = arrays
        parts = dataclasses.replace(
            self.parts, base=base, left=left, right=right, step=step, kinds=self.parts.kinds[1:]
        )
        return Factored(parts.folded() if step.ndim else parts, self.warning)
