"""A leaf that is perturbed where it is used, and dropped after: streaming."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from thicket_jax.experts.perturbation import Moves
from thicket_jax.mapping.interpreter import Special, bind, sliced_row

_VIEWS = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
}


Row = tuple[jax.Array, ...]
"""A slice of a leaf that is a stack, its key, its scale, and whether it moves; of a slice that is a
stack in turn, an array of each."""


class Deferred(Special):
    """A leaf, or a slice of a stack, that is perturbed where it is used, and not kept."""

    hoisted = False

    def __init__(
        self,
        ready: Moves,
        index: int,
        row: Row | None = None,
        views: tuple[Callable[[jax.Array], jax.Array], ...] = (),
    ) -> None:
        """Holds what moves leaf `index`, or a row of it, and the views of it that were taken."""
        self.ready, self.index, self.row, self.views = ready, index, row, views
        self.depth = ready.plan.stacked[index] if row is None else row[1].ndim
        self.base = self._viewed(ready.leaves[index] if row is None else row[0])

    def _viewed(self, array: jax.Array) -> jax.Array:
        for view in self.views:
            array = view(array)
        return array

    def build(self, why: str) -> jax.Array:
        """Returns θ + σ·ε of the leaf, the same bits as in `perturb`."""
        del why
        if self.row is None:
            return self._viewed(self.ready.leaf(self.index))

        def built(row: Row) -> jax.Array:
            *found, moves = row
            return jnp.where(moves, self.ready.row(self.index, *found), row[0])

        for _ in range(self.depth):
            built = functools.partial(jax.lax.map, built)
        return self._viewed(built(self.row))

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """Returns the slices of a `Stack`; another leaf whole, as its noise is drawn at once."""
        if not self._whole_stack:
            return self.build("scan"), lambda array: array
        if self.row is not None:
            return self.row, self._slice
        leaf, slices = self.ready.leaves[self.index], self.base.shape[: self.depth]
        _, keys, scales = self.ready.rows(self.index)
        moving = np.asarray(self.ready.plan.moving[self.index])
        return (leaf, *(x.reshape(slices) for x in (keys, scales, moving))), self._slice

    @property
    def _whole_stack(self) -> bool:
        return self.depth > 0 and not self.views

    def _slice(self, row: Row) -> "Deferred":
        return Deferred(self.ready, self.index, row)

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Builds the leaf and applies the operation, in a region of their own.

        Compilers order by what depends on what, and nothing keeps them from building every leaf at
        first. What is inside a branch lives no longer than the branch.
        """
        n = sliced_row(equation) if self._whole_stack else None
        if n is not None:
            row = jax.tree.map(lambda x: x[n], self.unstack()[0])
            return [Deferred(self.ready, self.index, row, (lambda array: array[None],))]
        if equation.primitive.name in _VIEWS and len(values) == 1:

            def view(array: jax.Array) -> jax.Array:
                return bind(equation, [array])[0]

            return [Deferred(self.ready, self.index, self.row, (*self.views, view))]

        def use() -> list[Any]:
            name = equation.primitive.name
            return bind(equation, [x.build(name) if isinstance(x, Special) else x for x in values])

        shapes = jax.eval_shape(use)
        # True, as no word has more bits; a compiler that saw that would merge the branches.
        word = jax.random.key_data(self.ready.root)[0]
        always = jax.lax.population_count(word) <= np.uint32(32)
        return jax.lax.cond(always, use, lambda: [jnp.zeros(x.shape, x.dtype) for x in shapes])
