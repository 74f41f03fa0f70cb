"""The factor on σ that gives a leaf's step a norm of σ: matrices, embeddings, vectors.

Large and others, "Scalable optimization in the modular norm" (2024), section 3: the norm of a
matrix is its spectral norm times √(rows/columns) (from the root mean square of its inputs to that
of its outputs), of an embedding the largest root mean square of a row, of a vector its largest
element. Here σ is the expected norm of the step, so that the noise keeps its law: no expert is
normalised on its own.
"""

import functools
import math
import re
from typing import Any

import jax
import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.stacks import row_of


def factor(noise: Noise, path: str, shape: tuple[int, ...]) -> float:
    """Returns mass / (expected modular norm of ε): what σ is multiplied by for one leaf."""
    return mass(noise, path) / expected_norm(noise, path, shape)


def mass(noise: Noise, path: str) -> float:
    """Returns the mass of the first expression that is found in the path; 1 without one."""
    found = (value for text, value in noise.masses if re.search(text, path))
    return float(next(found, 1.0))


def expected_norm(noise: Noise, path: str, shape: tuple[int, ...]) -> float:
    """Returns the expected norm of ε of one leaf, in the leaf's own norm."""
    kinds = noise.kinds(path, len(shape))
    size = {kind: math.prod(n for n, k in zip(shape, kinds, strict=True) if k == kind) for kind in
            "recb"}  # fmt: skip
    if "c" not in kinds or not {"r", "e"} & set(kinds):
        return noise.epsilon.largest(math.prod(shape))
    if "e" in kinds:
        return 1.0  # each element of a row has variance 1
    return math.sqrt(size["r"] / size["c"]) * noise.epsilon.spectral(size["r"], size["c"])


def leaf_scales(params: Any, plan: Plan) -> np.ndarray:
    """Returns the factor on σ for every leaf and slice of a stack, float32 [rows], in plan's order.

    1 for an absolute law. For a modular one a function of shapes alone. For a relative one the
    leaf's root mean square, computed in float64 on the host and rounded once, so that no
    compiled reduction order can move it.

    Args:
      params: θ.
      plan: `make_plan(params, noise)`.
    """
    if plan.noise.scale == "absolute":
        return np.ones(sum(map(len, plan.rows)), np.float32)
    leaves = jax.tree.leaves(params)
    if plan.noise.oriented:
        return np.asarray(_modular(plan, tuple(np.shape(leaf) for leaf in leaves)), np.float32)
    factors = [
        _root_mean_square(row_of(leaf, n, stacked) if stacked else leaf)
        if use and np.size(leaf)
        else 1.0
        for leaf, stacked, moving in zip(leaves, plan.stacked, plan.moving, strict=True)
        for n, use in enumerate(moving)
    ]
    return np.asarray(factors, np.float32)


@functools.lru_cache(maxsize=64)
def _modular(plan: Plan, shapes: tuple[tuple[int, ...], ...]) -> tuple[float, ...]:
    return tuple(
        factor(plan.noise, path, shape[stacked:]) if use and 0 not in shape else 1.0
        for shape, stacked, rows, moving in zip(
            shapes, plan.stacked, plan.rows, plan.moving, strict=True
        )
        for path, use in zip(rows, moving, strict=True)
    )


def _root_mean_square(leaf: Any) -> float:
    if isinstance(leaf, jax.core.Tracer):
        raise ArgumentError(
            "scale='relative' needs the values of params, which are traced here; let the "
            "traced function close over params instead of taking them"
        )
    flat = np.asarray(leaf).reshape(-1)
    total = sum(
        float(np.square(flat[i : i + 2**20].astype(np.float64)).sum())
        for i in range(0, flat.size, 2**20)
    )
    return math.sqrt(total / flat.size)
