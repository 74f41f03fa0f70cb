"""The operations that a matrix plus a low-rank step survives, and those that use it up.

Views (transpose, reshape, slices, conversion) act on W and on the factors alike. Products (matrix
product, embedding lookup, convolution) give ordinary arrays: x·W, and beside it (x·A)·Bᵀ.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from thicket_jax.experts.low_rank import outer
from thicket_jax.experts.perturbation import sum_dtype
from thicket_jax.mapping.interpreter import bind

_UNROLLED_RANK = 4  # up to this rank, thin products are written as sums


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
        spans = [_spans(self.kinds[0], side) for side in "lr"]
        factors = [self.left, self.right]
        moved = [jnp.moveaxis(x, 1, 0) if s else None for x, s in zip(factors, spans, strict=True)]
        fixed = [None if s else x[:, 0] for x, s in zip(factors, spans, strict=True)]

        def rebuild(slices: Any) -> Parts:
            base, found = slices
            left, right = (x if f is None else f for x, f in zip(found, fixed, strict=True))
            return Parts(base, left, right, self.step, self.kinds[1:])

        return (self.base, moved), rebuild

    def view(self, base: Any, change: Callable[[Any, str], Any], kinds: str) -> "Parts":
        """Returns a view: `change(factor, side)` for both factors, side `l` or `r`."""
        left, right = change(self.left, "l"), change(self.right, "r")
        return Parts(base, left, right, self.step, kinds)


def _spans(kind: str, side: str) -> bool:
    """Whether the left (`l`) or right (`r`) factor has the whole of an axis of this kind."""
    return kind in ("rb" if side == "l" else "cb")


Found = list[Any] | None
Rule = Callable[[Parts, int, list[Any], jex.JaxprEqn], Found]


def _on_base(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> list[Any]:
    """Applies the operation to W alone."""
    return bind(equation, [parts.base if i == position else x for i, x in enumerate(others)])


# Views.


def _same(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """Conversions and copies: the factors stay float32."""
    if len(others) > 1:
        return None
    (base,) = _on_base(parts, position, others, equation)
    if not jnp.issubdtype(base.dtype, jnp.floating):
        return None
    return [dataclasses.replace(parts, base=base)]


def _transpose(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    order = equation.params["permutation"]
    (base,) = _on_base(parts, position, others, equation)
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
    (base,) = _on_base(parts, position, others, equation)
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
        sizes = [n if _spans(k, side) else 1 for n, k in zip(new, kinds, strict=True)]
        return factor.reshape(factor.shape[0], *sizes)

    return [parts.view(base, change, "".join(kinds))]


def _squeeze(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    dropped = {axis % parts.base.ndim for axis in equation.params["dimensions"]}
    (base,) = _on_base(parts, position, others, equation)
    axes = tuple(axis + 1 for axis in dropped)
    kinds = "".join(k for axis, k in enumerate(parts.kinds) if axis not in dropped)
    return [parts.view(base, lambda x, _: lax.squeeze(x, axes), kinds)]


def _broadcast(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    if len(others) > 1:
        return None
    dims = equation.params["broadcast_dimensions"]
    old = parts.base.shape
    (base,) = _on_base(parts, position, others, equation)
    kinds = ["1"] * base.ndim
    for axis, dim in enumerate(dims):
        if old[axis] == base.shape[dim]:
            kinds[dim] = parts.kinds[axis]

    def change(factor: jax.Array, side: str) -> jax.Array:
        sizes = [n if _spans(k, side) else 1 for n, k in zip(base.shape, kinds, strict=True)]
        return lax.broadcast_in_dim(
            factor, (factor.shape[0], *sizes), (0, *(dim + 1 for dim in dims))
        )

    return [parts.view(base, change, "".join(kinds))]


def _slice(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    p = equation.params
    (base,) = _on_base(parts, position, others, equation)
    strides = p["strides"] or (1,) * base.ndim
    rows = list(zip(p["start_indices"], p["limit_indices"], strides, strict=True))
    return [_cut(parts, base, rows)]


def _cut(parts: Parts, base: jax.Array, rows: Sequence[tuple[int, int, int]]) -> Parts:
    def change(factor: jax.Array, side: str) -> jax.Array:
        used = [r if _spans(k, side) else (0, 1, 1) for r, k in zip(rows, parts.kinds, strict=True)]
        starts, limits, strides = zip((0, factor.shape[0], 1), *used, strict=True)
        return lax.slice(factor, starts, limits, strides)

    return parts.view(base, change, parts.kinds)


def _split(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    axis, start, found = equation.params["axis"], 0, []
    for base in _on_base(parts, position, others, equation):
        rows = [(0, n, 1) for n in parts.base.shape]
        rows[axis] = (start, start + base.shape[axis], 1)
        found.append(_cut(parts, base, rows))
        start += base.shape[axis]
    return found


def _dynamic_slice(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    if position:
        return None
    (base,) = _on_base(parts, position, others, equation)
    starts, sizes = others[1:], equation.params["slice_sizes"]

    def change(factor: jax.Array, side: str) -> jax.Array:
        spans = [_spans(k, side) for k in parts.kinds]
        at = [s if used else jnp.zeros_like(s) for s, used in zip(starts, spans, strict=True)]
        n = [size if used else 1 for size, used in zip(sizes, spans, strict=True)]
        zero = jnp.zeros_like(jnp.asarray(starts[0]))
        return lax.dynamic_slice(factor, [zero, *at], [factor.shape[0], *n])

    return [parts.view(base, change, parts.kinds)]


def _times_scalar(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    other = others[1 - position]
    divided = equation.primitive.name == "div"
    if np.ndim(other) or (divided and position):
        return None
    (base,) = _on_base(parts, position, others, equation)
    factor = jnp.asarray(other).astype(jnp.float32)
    step = parts.step / factor if divided else parts.step * factor
    return [dataclasses.replace(parts, base=base, step=step)]


def _negative(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    (base,) = _on_base(parts, position, others, equation)
    return [dataclasses.replace(parts, base=base, step=-parts.step)]


# Products.


def _dot(parts: Parts, position: int, others: list[Any], equation: jex.JaxprEqn) -> Found:
    """x·W + step·Σ_k (x·first_k)·second_k, first being the factor that meets x's axes."""
    p = equation.params
    x = others[1 - position]
    contract, batch = p["dimension_numbers"]
    own_c, x_c = contract[position], contract[1 - position]
    own_b, x_b = batch[position], batch[1 - position]
    contracted = {parts.kinds[axis] for axis in own_c if parts.base.shape[axis] > 1}
    if "b" in contracted:
        return None
    (out,) = _on_base(parts, position, others, equation)
    wide = sum_dtype(out.dtype)
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
    thin, used = _contract(parts, x, names, own, first, rank, now, p["precision"], wide)
    thin = thin * parts.factor.astype(wide)
    delta = _spread(parts, thin, used, own, second, rank, target, p["precision"])
    return [out + delta.astype(out.dtype)]


def _only(kind: str, side: str) -> bool:
    return _spans(kind, side) and kind != "b"


def _factor(parts: Parts, own: Sequence[int], side: str) -> tuple[jax.Array, list[int]]:
    """Returns a factor without the axes of size 1 that it does not span, and its axes' names."""
    factor = parts.left if side == "l" else parts.right
    spans = [_spans(k, side) for k in parts.kinds]
    dropped = tuple(axis + 1 for axis, used in enumerate(spans) if not used)
    return lax.squeeze(factor, dropped), [n for n, used in zip(own, spans, strict=True) if used]


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
    return jnp.einsum(thin, [rank, *used], factor, [rank, *held], target, precision=precision)


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
    (out,) = _on_base(parts, position, others, equation)
    kept = [a for a in range(parts.base.ndim) if a not in collapsed]

    def rows(side: str) -> jax.Array:
        """[rank, *out]: of size 1 along the axes that the factor does not span."""
        factor = parts.left if side == "l" else parts.right
        spans = [_spans(k, side) for k in parts.kinds]
        used = [n for n, axis in enumerate(looked_up) if spans[axis]]
        cut = [1 if a in collapsed or not spans[a] else sizes[a] for a in range(len(sizes))]
        if not used:
            flat = lax.squeeze(factor, tuple(a + 1 for a in sorted(collapsed)))
            return _laid(flat, [numbers.offset_dims[kept.index(a)] for a in kept], _axes(out))
        # Along an axis of size 1 there is one row, whatever the index.
        keep = np.asarray([spans[axis] for axis in looked_up], indices.dtype)
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
            fill_value=p["fill_value"],
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
    side, other = ("r", "l") if own == "r" else ("l", "r")
    (out,) = _on_base(parts, position, others, equation)
    wide = sum_dtype(out.dtype)
    x = others[0]
    kernel = lax.squeeze(parts.left if side == "l" else parts.right, (out_axis + 1,))
    kernel = jnp.moveaxis(kernel, 0, out_axis)
    thin = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
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
    return [out + delta.astype(out.dtype)]


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolution,
    "convert_element_type": _same,
    "copy": _same,
    "copy_p": _same,
    "div": _times_scalar,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "mul": _times_scalar,
    "neg": _negative,
    "optimization_barrier": _same,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
