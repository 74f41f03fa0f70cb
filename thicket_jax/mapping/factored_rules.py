"""The operations that use up a matrix plus a low-rank step, and the table of all that have a rule.

Products (matrix product, embedding lookup, convolution) give ordinary arrays: x·W, and beside it
(x·A)·Bᵀ. What is not linear in W (a fill, a rounding to whole numbers) never sees the factors.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from thicket_jax.experts.perturbation import is_narrow
from thicket_jax.mapping.factored_parts import Found, Parts, Rule, on_base, product_on_base, spans
from thicket_jax.mapping.factored_views import VIEWS, holds_steps

_UNROLLED_RANK = 4  # up to this rank, thin products are written as sums


def _dot(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """x·W + step·Σ_k (x·first_k)·second_k, first being the factor that meets x's axes."""
    p = equation.params
    x = others[1 - position]
    contract, batch = p["dimension_numbers"]
    own_c, x_c = contract[position], contract[1 - position]
    own_b, x_b = batch[position], batch[1 - position]
    contracted = {parts.kinds[axis] for axis in own_c if parts.base.shape[axis] > 1}
    if "b" in contracted or not _linear(x, equation):
        return None
    if parts.rounded and _rounds_operands(p["precision"]):
        return None
    result: Any = equation.outvars[0].aval
    out = product_on_base(parts, position, others, equation)
    narrow, wide = _thin_dtypes(x, parts.base, out)
    precision = _plain(p["precision"])
    # A number names every axis: of x, then those that W alone has, and one for the rank.
    names = list(range(x.ndim))
    own = [-1] * parts.base.ndim
    for pairs in (zip(own_c, x_c, strict=True), zip(own_b, x_b, strict=True)):
        for axis, of_x in pairs:
            own[axis] = names[of_x]
    free_own = [axis for axis in range(parts.base.ndim) if own[axis] < 0]
    for n, axis in enumerate(free_own):
        own[axis] = x.ndim + n
    rank = x.ndim + len(free_own)
    free_x = [names[a] for a in range(x.ndim) if a not in x_c and a not in x_b]
    both = [own[axis] for axis in free_own]
    target = [names[a] for a in x_b] + (free_x + both if position else both + free_x)
    # First the factor with the contracted axes; with both kinds of them, the rows first.
    first, second = ("r", "l") if contracted == {"c"} else ("l", "r")
    now = {own[a] for a in own_c if not _only(parts.kinds[a], second)}
    x = jnp.asarray(x).astype(narrow)
    thin, used = _contract(parts, x, names, own, first, rank, now, precision, wide)
    thin = thin * parts.factor.astype(wide)
    delta = _spread(parts, thin, used, own, second, rank, target, precision)
    return [_added(out, delta, result.dtype)]


def _linear(x: Any, equation: jex.JaxprEqn) -> bool:
    """Whether a product with x is linear: not where it is rounded to whole numbers or to 8 bits."""
    out: Any = getattr(equation.outvars[0].aval, "dtype", None)
    if jnp.issubdtype(jnp.asarray(x).dtype, jnp.complexfloating):
        return jnp.issubdtype(out, jnp.complexfloating)
    return holds_steps(out) or jnp.issubdtype(out, jnp.complexfloating)


def _thin_dtypes(x: Any, base: jax.Array, out: jax.Array) -> tuple[Any, Any]:
    """Returns the dtypes that thin products take and give: floating or complex, whatever x is.

    They take what x and W have in common, so that half precision stays that; where x and W differ
    (whole numbers times W, complex ones, half times single), they take what they give: float32, its
    complex counterpart, or twice that where x, W or the output have it.
    """
    found = [jnp.dtype(a.dtype) for a in (jnp.asarray(x), base, out)]
    double = any(dtype in (jnp.float64, jnp.complex128) for dtype in found)
    wide: Any = jnp.float64 if double else jnp.float32
    if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in found):
        wide = jnp.complex128 if double else jnp.complex64
    return (found[0] if found[0] == found[1] else wide), wide


def _plain(precision: Any) -> Any:
    """Drops a named algorithm, which fixes the dtypes of operands: thin products have their own."""
    named = isinstance(precision, lax.DotAlgorithm | lax.DotAlgorithmPreset)
    return None if named else precision


def _rounds_operands(precision: Any) -> bool:
    """Whether a named algorithm takes its operands in 16 bits, and once."""
    if isinstance(precision, lax.DotAlgorithmPreset):
        return precision.name in ("BF16_BF16_BF16", "BF16_BF16_F32", "F16_F16_F16", "F16_F16_F32")
    if isinstance(precision, lax.DotAlgorithm):
        once = precision.num_primitive_operations == 1
        return once and is_narrow(jnp.dtype(precision.lhs_precision_type))
    return False


def _added(out: jax.Array, delta: jax.Array, dtype: Any) -> jax.Array:
    """Returns out + delta, summed in delta's dtype and rounded once."""
    return (out.astype(delta.dtype) + delta).astype(dtype)


def _only(kind: str, side: str) -> bool:
    return spans(kind, side) and kind != "b"


def _factor(parts: Parts, own: Sequence[int], side: str) -> tuple[jax.Array, list[int]]:
    """Returns a factor without the axes of size 1 that it does not span, and its axes' names."""
    factor = parts.left if side == "l" else parts.right
    whole = [spans(k, side) for k in parts.kinds]
    dropped = tuple(axis + 1 for axis, used in enumerate(whole) if not used)
    return lax.squeeze(factor, dropped), [n for n, used in zip(own, whole, strict=True) if used]


def _contract(
    parts: Parts,
    x: jax.Array,
    names: list[int],
    own: list[int],
    side: str,
    rank: int,
    now: set[int],
    precision: Any,
    wide: Any,
) -> tuple[jax.Array, list[int]]:
    """Sums x times the factor over the axes `now`; the rank's axis comes first."""
    factor, held = _factor(parts, own, side)
    out = [n for n in names if n not in now] + [n for n in held if n not in names]
    thin = jnp.einsum(
        x,
        names,
        factor.astype(x.dtype),
        [rank, *held],
        [rank, *out],
        precision=precision,
        preferred_element_type=wide,
    )
    return thin, out


def _spread(
    parts: Parts,
    thin: jax.Array,
    used: list[int],
    own: list[int],
    side: str,
    rank: int,
    target: list[int],
    precision: Any,
) -> jax.Array:
    """Sums thin times the other factor over the rank and what is left to contract."""
    factor, held = _factor(parts, own, side)
    factor = factor.astype(thin.dtype)
    if set(used) | set(held) <= set(target) and parts.rank <= _UNROLLED_RANK:
        laid = [_laid(thin, used, target), _laid(factor, held, target)]
        total = laid[0][0] * laid[1][0]
        for k in range(1, parts.rank):
            total = total + laid[0][k] * laid[1][k]
        return total
    there = [name for name in target if name in used or name in held]
    total = jnp.einsum(thin, [rank, *used], factor, [rank, *held], there, precision=precision)
    # Along an axis of W that was broadcast, all are equal.
    return lax.expand_dims(total, [n for n, name in enumerate(target) if name not in there])


def _laid(array: jax.Array, names: list[int], target: list[int]) -> jax.Array:
    """Lays [rank, *names] out along the target's axes, with size 1 where it has none."""
    order = sorted(range(len(names)), key=lambda n: target.index(names[n]))
    array = lax.transpose(array, (0, *(n + 1 for n in order)))
    there = set(names)
    return lax.expand_dims(array, [1 + n for n, name in enumerate(target) if name not in there])


def _gather(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """Rows of a table: the same rows of W and of the factors."""
    if position:
        return None
    p, indices = equation.params, others[1]
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    collapsed = set(numbers.collapsed_slice_dims)
    looked_up = list(numbers.start_index_map)
    if numbers.operand_batching_dims or set(looked_up) != collapsed:
        return None
    if any(size != parts.base.shape[a] for a, size in enumerate(sizes) if a not in collapsed):
        return None
    fills = lax.GatherScatterMode.from_any(p["mode"]) == lax.GatherScatterMode.FILL_OR_DROP
    if fills and any(parts.kinds[axis] == "1" for axis in looked_up):
        return None  # neither factor has the axis along which an index may be out of bounds
    (out,) = on_base(parts, position, others, equation)
    kept = [a for a in range(parts.base.ndim) if a not in collapsed]

    def rows(side: str) -> jax.Array:
        """[rank, *out]: of size 1 along the axes that the factor does not span."""
        factor = parts.left if side == "l" else parts.right
        whole = [spans(k, side) for k in parts.kinds]
        used = [n for n, axis in enumerate(looked_up) if whole[axis]]
        cut = [1 if a in collapsed or not whole[a] else sizes[a] for a in range(len(sizes))]
        if not used:
            flat = lax.squeeze(factor, tuple(a + 1 for a in sorted(collapsed)))
            return _laid(flat, [numbers.offset_dims[kept.index(a)] for a in kept], _axes(out))
        # Along an axis of size 1 there is one row, whatever the index.
        keep = np.asarray([whole[axis] for axis in looked_up], indices.dtype)
        at = indices * jnp.broadcast_to(keep, indices.shape)
        shifted = lax.GatherDimensionNumbers(
            offset_dims=(0, *(d + 1 for d in numbers.offset_dims)),
            collapsed_slice_dims=tuple(a + 1 for a in numbers.collapsed_slice_dims),
            start_index_map=tuple(a + 1 for a in looked_up),
        )
        return lax.gather(
            factor,
            at,
            shifted,
            (parts.rank, *cut),
            indices_are_sorted=False,
            mode=p["mode"],
            fill_value=0,  # what W is filled with does not move
        )

    looked = dataclasses.replace(parts, base=out, left=rows("l"), right=rows("r"))
    return [looked.built()]


def _axes(array: jax.Array) -> list[int]:
    return list(range(array.ndim))


def _convolution(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """The kernel as a matrix: one convolution with W, one with rank channels, and a product."""
    p = equation.params
    if position != 1 or p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return None
    spec = p["dimension_numbers"]
    out_axis = spec.rhs_spec[0]
    inside = {k for a, k in enumerate(parts.kinds) if a != out_axis and parts.base.shape[a] > 1}
    own = parts.kinds[out_axis]
    if own not in "rc" or not inside <= {"c" if own == "r" else "r"}:
        return None
    if not _linear(others[0], equation):
        return None
    side, other = ("r", "l") if own == "r" else ("l", "r")
    result: Any = equation.outvars[0].aval
    out = product_on_base(parts, position, others, equation)
    x = others[0]
    narrow, wide = _thin_dtypes(x, parts.base, out)
    kernel = lax.squeeze(parts.left if side == "l" else parts.right, (out_axis + 1,))
    kernel = jnp.moveaxis(kernel, 0, out_axis)
    thin = lax.conv_general_dilated(
        x.astype(narrow),
        kernel.astype(narrow),
        window_strides=p["window_strides"],
        padding=p["padding"],
        lhs_dilation=p["lhs_dilation"],
        rhs_dilation=p["rhs_dilation"],
        dimension_numbers=spec,
        precision=p["precision"],
        preferred_element_type=wide,
    )
    channel = spec.out_spec[1]
    factor, _ = _factor(parts, _axes(parts.base), other)
    channels = _axes(out)
    names = [len(channels) if a == channel else a for a in channels]
    delta = jnp.einsum(
        thin * parts.factor.astype(wide),
        names,
        factor.astype(wide),
        [len(channels), channel],
        channels,
        precision=p["precision"],
    )
    return [_added(out, delta, result.dtype)]


RULES: dict[str, Rule] = {
    **VIEWS,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "gather": _gather,
}
