"""K experts → one parameter set: θ plus a weighted sum of their steps."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import leaf_noise, sum_dtype
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.experts.scales import leaf_scales


def merge(params: Any, experts: Population, weights: Sequence[float] | None = None) -> Any:
    """Returns one parameter set, θ + Σ_k w_k·σ_k·ε_k, with signs and scales as the law says.

    Streamed: one leaf and one expert's noise at a time, summed in float32 and rounded once to the
    leaf's dtype. Memory: the result, and three float32 copies of the largest leaf.

    Args:
      params: θ; never modified.
      experts: K experts.
      weights: K numbers; default 1/K each.

    Raises:
      ArgumentError: weights that are not K finite numbers.
    """
    check_experts("experts", experts)
    if jnp.ndim(experts.ids) > 1:
        raise ArgumentError("experts are points of a plane, sums themselves; merge its basis")
    K = len(experts)
    try:
        values = np.full(K, 1 / K) if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (K,) or not np.isfinite(values).all():
        raise ArgumentError(f"weights must be {K} finite numbers, one per expert")
    plan = make_plan(params, experts.noise)
    scales = leaf_scales(params, plan)
    leaves, structure = jax.tree.flatten(params)
    merged = [
        _merge_leaf(leaf, experts, jnp.asarray(values, jnp.float32), scale, path=path)
        if use
        else leaf
        for leaf, path, use, scale in zip(leaves, plan.paths, plan.chosen, scales, strict=True)
    ]
    return jax.tree.unflatten(structure, merged)


def _merge_leaf_traced(
    leaf: jax.Array, experts: Population, weights: jax.Array, scale: jax.Array, path: str
) -> jax.Array:
    wide = sum_dtype(leaf.dtype)

    def add(total: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        weight, ids, sigmas, signs = row
        expert = Population(experts.key, ids, sigmas, signs, experts.noise)
        factor = weight * expert.signs * expert.sigmas * scale
        return total + factor * leaf_noise(expert, path, leaf.shape), None

    rows = (weights, experts.ids, experts.sigmas, experts.signs)
    total, _ = jax.lax.scan(add, jnp.zeros(leaf.shape, jnp.float32), rows)
    return (leaf.astype(wide) + total.astype(wide)).astype(leaf.dtype)


_merge_leaf = jax.jit(_merge_leaf_traced, static_argnames="path")
