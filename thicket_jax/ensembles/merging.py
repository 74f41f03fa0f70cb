"""K experts → one parameter set: θ plus a weighted sum of their steps."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, check_choice
from thicket_jax.experts.arguments import with_values
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import moved_dtype, row_noise, sum_dtype
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.experts.scales import leaf_scales

_LOG = logging.getLogger("thicket_jax")


def merge(
    params: Any,
    experts: Population,
    weights: Sequence[float] | None = None,
    *,
    dtype: str | None = None,
) -> Any:
    """Returns one parameter set, θ + Σ_k w_k·σ_k·ε_k, with signs and scales as the law says.

    Streamed: one leaf and one expert's noise at a time, summed in float32 and rounded once to the
    leaf's dtype; a matrix of 16 bits under a law with `rounded=False` is not, and is float32. A
    log message says so where most of what should move does not: the mean of steps is smaller than
    each. Memory: the result, and three float32 copies of the largest leaf.

    Args:
      params: θ; never modified.
      experts: K experts.
      weights: K numbers; default 1/K each.
      dtype: `"float32"` leaves every sum of 16 bits in float32, not rounded; None is as above.

    Raises:
      ArgumentError: weights that are not K finite numbers, or another dtype.
    """
    check_experts("experts", experts)
    check_dtype(dtype)
    if jnp.ndim(experts.ids) > 1:
        raise ArgumentError("experts are points of a plane, sums themselves; merge its basis")
    K = len(experts)
    try:
        values = np.full(K, 1 / K) if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (K,) or not np.isfinite(values).all():
        raise ArgumentError(f"weights must be {K} finite numbers, one per expert")
    params = with_values("params", params)
    plan = make_plan(params, experts.noise)
    scales = leaf_scales(params, plan)
    leaves, structure = jax.tree.flatten(params)
    factors = jnp.asarray(values, jnp.float32)
    merged, lost = list(leaves), []
    for i, path in enumerate(plan.paths):
        if not plan.chosen[i]:
            continue
        own = jnp.result_type(leaves[i])
        kept = sum_dtype(own) if dtype else moved_dtype(experts.noise, plan.letters[i], own)
        begin, hashes = plan.starts[i], np.asarray(plan.hashes[i], np.uint32)
        # A row that `where` leaves out has a step of 0.
        steps = scales[begin : begin + len(hashes)] * np.asarray(plan.moving[i], np.float32)
        stacked = plan.stacked[i]
        merged[i], moved, meant = _merge_leaf(
            leaves[i],
            experts,
            factors,
            *((hashes, steps) if stacked else (hashes[0], steps[0])),
            letters=plan.letters[i],
            stacked=stacked,
            dtype=kept,
        )
        if 2 * int(moved) < int(meant):
            lost.append(f"{100 * int(moved) / int(meant):.2g} % in {path!r} ({own})")
    if lost:
        _LOG.warning(
            "the merged step is below half a unit in the last place of most weights in %d leaves; "
            "of those that should, there move %s; with dtype='float32' (--dtype float32) all do",
            len(lost),
            ", ".join(lost[:3]),
        )
    return jax.tree.unflatten(structure, merged)


def check_dtype(dtype: str | None) -> None:
    """Raises `ArgumentError` for what is no dtype of a merge."""
    if dtype is not None:
        check_choice("dtype", dtype, ("float32",))


def _merge_row(
    row: jax.Array,
    experts: Population,
    weights: jax.Array,
    leaf_hash: jax.Array,
    scale: jax.Array,
    letters: str,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the sum, how many weights it moves, and how many have a step that is not 0."""
    wide = sum_dtype(row.dtype)

    def add(total: jax.Array, column: tuple) -> tuple[jax.Array, None]:
        weight, ids, sigmas, signs = column
        expert = Population(experts.key, ids, sigmas, signs, experts.noise)
        factor = weight * expert.signs * expert.sigmas * scale
        return total + factor * row_noise(expert, leaf_hash, row.shape, letters), None

    columns = (weights, experts.ids, experts.sigmas, experts.signs)
    total, _ = jax.lax.scan(add, jnp.zeros(row.shape, jnp.float32), columns)
    merged = (row.astype(wide) + total.astype(wide)).astype(dtype)
    return merged, (merged != row.astype(dtype)).sum(), (total != 0).sum()


@functools.partial(jax.jit, static_argnames=("letters", "stacked", "dtype"))
def _merge_leaf(
    leaf: jax.Array,
    experts: Population,
    weights: jax.Array,
    hashes: jax.Array,
    scales: jax.Array,
    letters: str,
    stacked: int,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_merge_row` of a leaf, or of the slices of a stack one after another."""

    def row(rows: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
        leaf, leaf_hash, scale = rows
        return _merge_row(leaf, experts, weights, leaf_hash, scale, letters, dtype)

    if not stacked:
        return row((leaf, hashes, scales))
    rows = leaf.reshape(len(hashes), *leaf.shape[stacked:])
    merged, moved, meant = jax.lax.map(row, (rows, hashes, scales))
    return merged.reshape(leaf.shape), moved.sum(), meant.sum()
