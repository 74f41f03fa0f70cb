"""The views of a matrix plus a low-rank step: they act on W and on the factors alike.

Transpose, reshape, slices, conversion, multiples.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from thicket_jax.experts.perturbation import is_narrow
from thicket_jax.mapping.factored_parts import Found, Parts, Rule, on_base, spans


def _same(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """Copies: the factors stay float32."""
    if len(others) > 1:
        return None
    (base,) = on_base(parts, position, others, equation)
    return [dataclasses.replace(parts, base=base)]


def _converted(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """Conversions, as far as the step may be kept apart; the factors stay float32."""
    new = equation.params["new_dtype"]
    if not holds_steps(new) or (parts.rounded and is_narrow(new)):
        return None
    (base,) = on_base(parts, position, others, equation)
    return [dataclasses.replace(parts, base=base)]


def holds_steps(dtype: Any) -> bool:
    """Whether W may be converted and its step kept apart: not to whole numbers, nor to 8 bits.

    In 8 bits most steps are lost, or are one of the few that there are: what is left of W + step·ε
    is far from the conversion of W plus the step.
    """
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 16


def _transpose(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    order = equation.params["permutation"]
    (base,) = on_base(parts, position, others, equation)
    shifted = (0, *(axis + 1 for axis in order))
    kinds = "".join(parts.kinds[axis] for axis in order)
    return [parts.view(base, lambda x, _: lax.transpose(x, shifted), kinds)]


def groups_of(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Splits a reshape into independent ones: [(old axes, new axes)] of equal products."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b, left, right = [], [], 1, 1
        if i < len(old):
            a, left, i = [i], old[i], i + 1
        if j < len(new):
            b, right, j = [j], new[j], j + 1
        while left != right:
            if left < right and i < len(old):
                a, left, i = [*a, i], left * old[i], i + 1
            elif right < left and j < len(new):
                b, right, j = [*b, j], right * new[j], j + 1
            elif i < len(old) and old[i] == 1:
                a, i = [*a, i], i + 1
            else:
                return None
        found.append((a, b))
    return found


def _reshape(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    if equation.params.get("dimensions") is not None:
        return None
    old = parts.base.shape
    (base,) = on_base(parts, position, others, equation)
    return _reshaped(parts, base, old)


def _reshaped(parts: Parts, base: jax.Array, old: tuple[int, ...]) -> Found:
    new = base.shape
    groups = groups_of(old, new)
    if groups is None or math.prod(old) == 0:
        return None
    kinds = ["1"] * len(new)
    for a, b in groups:
        found = {parts.kinds[axis] for axis in a if old[axis] > 1}
        if len(found) > 1:
            return None
        for axis in b:
            if new[axis] > 1:
                kinds[axis] = next(iter(found))

    def change(factor: jax.Array, side: str) -> jax.Array:
        sizes = [n if spans(k, side) else 1 for n, k in zip(new, kinds, strict=True)]
        return factor.reshape(factor.shape[0], *sizes)

    return [parts.view(base, change, "".join(kinds))]


def _squeeze(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    dropped = {axis % parts.base.ndim for axis in equation.params["dimensions"]}
    (base,) = on_base(parts, position, others, equation)
    axes = tuple(axis + 1 for axis in dropped)
    kinds = "".join(k for axis, k in enumerate(parts.kinds) if axis not in dropped)
    return [parts.view(base, lambda x, _: lax.squeeze(x, axes), kinds)]


def _broadcast(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    if len(others) > 1:
        return None
    dims = equation.params["broadcast_dimensions"]
    old = parts.base.shape
    (base,) = on_base(parts, position, others, equation)
    kinds = ["1"] * base.ndim
    for axis, dim in enumerate(dims):
        if old[axis] == base.shape[dim]:
            kinds[dim] = parts.kinds[axis]

    def change(factor: jax.Array, side: str) -> jax.Array:
        sizes = [n if spans(k, side) else 1 for n, k in zip(base.shape, kinds, strict=True)]
        return lax.broadcast_in_dim(
            factor, (factor.shape[0], *sizes), (0, *(dim + 1 for dim in dims))
        )

    return [parts.view(base, change, "".join(kinds))]


def _slice(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    p = equation.params
    (base,) = on_base(parts, position, others, equation)
    strides = p["strides"] or (1,) * base.ndim
    rows = list(zip(p["start_indices"], p["limit_indices"], strides, strict=True))
    return [_cut(parts, base, rows)]


def _cut(parts: Parts, base: jax.Array, rows: Sequence[tuple[int, int, int]]) -> Parts:
    def change(factor: jax.Array, side: str) -> jax.Array:
        used = [r if spans(k, side) else (0, 1, 1) for r, k in zip(rows, parts.kinds, strict=True)]
        starts, limits, strides = zip((0, factor.shape[0], 1), *used, strict=True)
        return lax.slice(factor, starts, limits, strides)

    return parts.view(base, change, parts.kinds)


def _split(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    axis, start, found = equation.params["axis"], 0, []
    for base in on_base(parts, position, others, equation):
        rows = [(0, n, 1) for n in parts.base.shape]
        rows[axis] = (start, start + base.shape[axis], 1)
        found.append(_cut(parts, base, rows))
        start += base.shape[axis]
    return found


def _dynamic_slice(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    if position:
        return None
    (base,) = on_base(parts, position, others, equation)
    starts, sizes = others[1:], equation.params["slice_sizes"]

    def change(factor: jax.Array, side: str) -> jax.Array:
        whole = [spans(k, side) for k in parts.kinds]
        at = [s if used else jnp.zeros_like(s) for s, used in zip(starts, whole, strict=True)]
        n = [size if used else 1 for size, used in zip(sizes, whole, strict=True)]
        zero = jnp.zeros_like(jnp.asarray(starts[0]))
        return lax.dynamic_slice(factor, [zero, *at], [factor.shape[0], *n])

    return [parts.view(base, change, parts.kinds)]


def _times_scalar(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    other = others[1 - position]
    divided = equation.primitive.name == "div"
    if np.ndim(other) or (divided and position):
        return None
    (base,) = on_base(parts, position, others, equation)
    factor = jnp.asarray(other).astype(jnp.float32)
    step = parts.step / factor if divided else parts.step * factor
    return [dataclasses.replace(parts, base=base, step=step)]


def _negative(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    (base,) = on_base(parts, position, others, equation)
    return [dataclasses.replace(parts, base=base, step=-parts.step)]


VIEWS: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "convert_element_type": _converted,
    "copy": _same,
    "copy_p": _same,
    "div": _times_scalar,
    "dynamic_slice": _dynamic_slice,
    "mul": _times_scalar,
    "neg": _negative,
    "optimization_barrier": _same,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
