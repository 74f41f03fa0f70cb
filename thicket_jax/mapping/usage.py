"""How a function uses its parameters: which axes of a leaf are rows, columns, or a stack.

Looked at once, by shapes alone; the answer becomes part of the noise law.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from thicket_jax.experts.arguments import check_arrays, check_callable, shapes_alone
from thicket_jax.experts.leaves import leaf_names, leaf_paths, leaf_rows
from thicket_jax.experts.low_rank import unoriented
from thicket_jax.mapping import interpreter
from thicket_jax.mapping.factored_views import groups_of
from thicket_jax.mapping.interpreter import Special, bases, bind


def matrix_axes(
    fn: Callable[..., Any], params: Any, *rest: Any, oriented: bool = False
) -> tuple[tuple[str, str], ...]:
    """Finds which axes of every parameter are rows and columns, by how `fn` first uses it.

    A matrix product contracts rows, an embedding looks rows up, a convolution's rows are its window
    and inputs; the axis that a scan or an index takes apart is a stack of matrices; what is added,
    as a bias is, has no rows.

    Args:
      fn: `(params, *rest) -> tree`, traced by shapes; nothing is computed.
      params, rest: its arguments, arrays or `jax.ShapeDtypeStruct`.
      oriented: whether it matters which side is which, as it does for `scale="modular"`: with
        letter `e` for rows that are looked up. For low-rank noise it does not: A Bᵀ and B Aᵀ have
        one law.

    Returns:
      (leaf path, letters) of the leaves that are used otherwise than a noise law would assume, for
      its `axes`.

    Example:
      >>> w = {"query": jnp.ones((4, 2, 3))}
      >>> matrix_axes(lambda p, x: jnp.einsum("bd,dnh->bnh", x, p["query"]), w, jnp.ones((5, 4)))
      (('query', 'rcc'),)
    """
    check_callable("fn", fn, optional=False)
    params, rest = shapes_alone(params), shapes_alone(rest)
    for name, tree in (("params", params), ("rest", rest)):
        check_arrays(name, tree, values=False)
    used: dict[str, str] = {}
    stacked = {path: (rows, depth) for path, rows, depth in leaf_names(params)}

    def look(params: Any, *rest: Any) -> Any:
        leaves = []
        for path, leaf in leaf_paths(params):
            array = jnp.asarray(leaf)
            matrix = array.ndim > 1 + stacked[path][1]
            matrix = matrix and jnp.issubdtype(array.dtype, jnp.floating)
            labels = tuple(frozenset({axis}) for axis in range(array.ndim))
            leaves.append(_Seen(array, labels, path, array.ndim, used) if matrix else array)
        return interpreter.call(fn, leaves, params, *rest)

    jax.eval_shape(look, params, *rest)
    used = {
        row: letters[stacked[path][1] :]
        for path, letters in used.items()
        for row in stacked[path][0]
    }
    if not oriented:
        used = {path: unoriented(letters) for path, letters in used.items()}
    assumed = {path: "r" * (len(letters) - 1) + "c" for path, letters in used.items()}
    return tuple(
        (path, used[path]) for path, _ in leaf_rows(params) if used.get(path) != assumed.get(path)
    )


Labels = tuple[frozenset[int], ...]
"""For each axis of a view, the axes of the leaf that it is made of."""


@dataclasses.dataclass
class _Seen(Special):
    """A leaf, or a view of it, that is watched until an operation uses it up."""

    hoisted = False
    base: jax.Array
    labels: Labels
    path: str
    ndim: int
    used: dict[str, str]

    def build(self, why: str) -> jax.Array:
        """Returns the leaf; being built says nothing of its axes."""
        del why
        return self.base

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """The first axis is a stack."""
        return self.base, lambda base: dataclasses.replace(self, base=base, labels=self.labels[1:])

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Follows a view, or notes how a product uses the leaf."""
        name, position = equation.primitive.name, next(i for i, x in enumerate(values) if x is self)
        found = bind(equation, bases(values))
        viewed = _VIEWS[name](self, equation, found) if name in _VIEWS and not position else None
        if viewed is not None:
            return [
                dataclasses.replace(self, base=base, labels=labels)
                for base, labels in zip(found, viewed, strict=True)
            ]
        if name in _USES:
            for at, value in enumerate(values):
                if isinstance(value, _Seen):
                    rows = _USES[name](value, at, equation)
                    if rows is not None:
                        value.note(rows, "e" if name == "gather" else "r")
        elif name in _ADDED or len(self.left()) < 2:
            self.note(set())
        return found

    def left(self) -> set[int]:
        """Returns the leaf's axes that the view still has; one of a stack of vectors."""
        return {axis for label in self.labels for axis in label}

    def note(self, rows: set[int], row: str = "r") -> None:
        """Notes which axes of the view are rows; axes that are gone are a stack."""
        of_rows = {axis for at in rows for axis in self.labels[at]}
        left = self.left()
        letters = "".join(
            row if a in of_rows else "c" if a in left else "b" for a in range(self.ndim)
        )
        if not {row, "c"} <= set(letters):
            letters = "b" * self.ndim
        self.used.setdefault(self.path, letters)


def _kept(seen: _Seen, equation: jex.JaxprEqn, found: list[jax.Array]) -> list[Labels] | None:
    same = all(x.ndim == seen.base.ndim for x in found)
    return [seen.labels] * len(found) if same else None


def _transposed(seen: _Seen, equation: jex.JaxprEqn, found: list[jax.Array]) -> list[Labels]:
    return [tuple(seen.labels[axis] for axis in equation.params["permutation"])]


def _squeezed(seen: _Seen, equation: jex.JaxprEqn, found: list[jax.Array]) -> list[Labels]:
    dropped = {axis % seen.base.ndim for axis in equation.params["dimensions"]}
    return [tuple(x for axis, x in enumerate(seen.labels) if axis not in dropped)]


def _broadcast(seen: _Seen, equation: jex.JaxprEqn, found: list[jax.Array]) -> list[Labels]:
    labels: list[frozenset[int]] = [frozenset()] * found[0].ndim
    for axis, dim in enumerate(equation.params["broadcast_dimensions"]):
        labels[dim] = seen.labels[axis]
    return [tuple(labels)]


def _reshaped(seen: _Seen, equation: jex.JaxprEqn, found: list[jax.Array]) -> list[Labels] | None:
    groups = groups_of(seen.base.shape, found[0].shape)
    if groups is None:
        return None
    labels: list[frozenset[int]] = [frozenset()] * found[0].ndim
    for old, new in groups:
        together: frozenset[int] = frozenset().union(*(seen.labels[axis] for axis in old))
        for axis in new:
            labels[axis] = together
    return [tuple(labels)]


_VIEWS: dict[str, Callable[..., list[Labels] | None]] = {
    "broadcast_in_dim": _broadcast,
    "convert_element_type": _kept,
    "copy": _kept,
    "copy_p": _kept,
    "div": _kept,
    "dynamic_slice": _kept,
    "mul": _kept,
    "neg": _kept,
    "reshape": _reshaped,
    "slice": _kept,
    "split": _kept,
    "squeeze": _squeezed,
    "transpose": _transposed,
}


_ADDED = {"add", "sub"}  # what is added is a vector, whatever its shape


def _dot_rows(seen: _Seen, position: int, equation: jex.JaxprEqn) -> set[int] | None:
    contract, batch = equation.params["dimension_numbers"]
    if len(contract[position]) == seen.base.ndim or not contract[position]:
        return None
    seen.labels = tuple(
        frozenset() if axis in batch[position] else x for axis, x in enumerate(seen.labels)
    )
    return set(contract[position])


def _gather_rows(seen: _Seen, position: int, equation: jex.JaxprEqn) -> set[int] | None:
    return None if position else set(equation.params["dimension_numbers"].start_index_map)


def _convolution_rows(seen: _Seen, position: int, equation: jex.JaxprEqn) -> set[int] | None:
    out_axis = equation.params["dimension_numbers"].rhs_spec[0]
    return set(range(seen.base.ndim)) - {out_axis} if position == 1 else None


_USES: dict[str, Callable[..., set[int] | None]] = {
    "conv_general_dilated": _convolution_rows,
    "dot_general": _dot_rows,
    "gather": _gather_rows,
}
