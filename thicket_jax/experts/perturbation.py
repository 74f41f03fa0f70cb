"""θ + σ·ε over a parameter pytree.

The only place where noise meets parameters. Scoring, ensembling, merging and exporting call
`apply_noise`; `perturb` is its jitted form for one expert.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.experts import threefry
from thicket_jax.experts.arguments import with_values
from thicket_jax.experts.leaves import Plan, make_plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, check_key
from thicket_jax.experts.scales import leaf_scales

_GROUPED_LEAF = 2**12  # elements: smaller leaves of one shape are moved in one loop


def row_noise(
    expert: Population, leaf_hash: Any, shape: tuple[int, ...], letters: str
) -> jax.Array:
    """Draws ε of one expert for one leaf, or one slice of a stack: float32 of `shape`.

    The key is fold_in(fold_in(population key, expert id), hash of the leaf's path): it depends on
    no other leaf. A tied law hashes the shape instead of the path.

    Args:
      expert: a population of no axis.
      leaf_hash: uint32 [], as in `Plan.hashes`.
      shape: of the leaf or the slice.
      letters: as in `Plan.letters`.
    """
    key = jax.random.fold_in(jax.random.fold_in(expert.key, expert.ids), leaf_hash)
    return expert.noise.epsilon.draw(key, tuple(shape), letters)


def sum_dtype(dtype: Any) -> Any:
    """Returns the dtype in which noise is added to a leaf: float32, or float64 for float64."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def is_narrow(dtype: Any) -> bool:
    """Whether these are floating numbers of fewer than 32 bits."""
    return bool(jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32)


def moved_dtype(noise: Noise, letters: str, dtype: Any) -> Any:
    """Returns the dtype of a moved leaf: its own, but float32 for 16 bits that are not rounded."""
    return jnp.float32 if letters and not noise.rounded and is_narrow(dtype) else dtype


def _rounded(array: jax.Array, dtype: Any) -> jax.Array:
    """Rounds once, also where the function converts back to 32 bits.

    Compilers for accelerators drop a conversion to 16 bits and back, and so would score what
    `perturb` does not return; a reduction of precision they keep.
    """
    out = array.astype(dtype)
    if not is_narrow(dtype):
        return out
    bits = jnp.finfo(dtype)
    return jax.lax.reduce_precision(out, bits.nexp, bits.nmant)


@dataclasses.dataclass(frozen=True)
class Moves:
    """What it takes to move each chosen leaf of one expert.

    Attributes:
      plan: which leaves, and by which law.
      leaves: of θ, in flattening order.
      structure: of θ.
      root: the population's key.
      keys: leaf index → the keys of its rows.
      sigma: float32 [], sign·σ.
      scales: factor on σ for every row, float32 [rows].
    """

    plan: Plan
    leaves: list[Any]
    structure: Any
    root: jax.Array
    keys: dict[int, jax.Array]
    sigma: jax.Array
    scales: jax.Array

    @property
    def noise(self) -> Noise:
        """The law."""
        return self.plan.noise

    def rows(self, i: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns leaf i with the keys and scales of its rows, each with an axis of rows."""
        leaf, begin = self.leaves[i], self.plan.starts[i]
        scales = self.scales[begin : begin + len(self.plan.rows[i])]
        return leaf.reshape(len(scales), *self.shape(i)), self.keys[i], scales

    def shape(self, i: int) -> tuple[int, ...]:
        """Returns the shape of a row of leaf i."""
        return self.leaves[i].shape[self.plan.stacked[i] :]

    def leaf(self, i: int) -> jax.Array:
        """Returns leaf i moved: θ + (sign·σ·scale)·ε, in float32, rounded once if at all."""
        rows = self.rows(i)
        if not self.plan.stacked[i]:
            return self.row(i, *(x[0] for x in rows))
        return self._kept(i, jax.lax.map(lambda row: self.row(i, *row), rows))

    def row(self, i: int, row: jax.Array, key: jax.Array, scale: jax.Array) -> jax.Array:
        """Returns one row of leaf i moved."""
        return self._move(self.plan.letters[i], (row, key, scale))

    def moved(self, indices: Sequence[int]) -> dict[int, jax.Array]:
        """Returns the leaves of these indices, moved; small ones of one shape in one loop."""
        out = {}
        for letters, members in self._groups(indices):
            if len(members) == 1:
                out[members[0]] = self.leaf(members[0])
                continue
            # The same arithmetic in a loop: a leaf's bits do not depend on who shares its shape.
            rows = [self.rows(i) for i in members]
            together = jax.lax.map(
                functools.partial(self._move, letters),
                tuple(jnp.concatenate(parts) for parts in zip(*rows, strict=True)),
            )
            begin = 0
            for i, (leaf, *_) in zip(members, rows, strict=True):
                moved = together[begin : begin + len(leaf)]
                out[i] = self._kept(i, moved) if self.plan.stacked[i] else moved[0]
                begin += len(leaf)
        return out

    def _kept(self, i: int, moved: jax.Array) -> jax.Array:
        """Returns a stack of rows moved, but for those that `where` leaves out."""
        leaf, moving = self.leaves[i], self.plan.moving[i]
        moved = moved.reshape(leaf.shape)
        if all(moving):
            return moved
        depth = self.plan.stacked[i]
        use = np.asarray(moving).reshape(leaf.shape[:depth] + (1,) * (leaf.ndim - depth))
        return jnp.where(use, moved, leaf.astype(moved.dtype))

    def _move(self, letters: str, row: tuple) -> jax.Array:
        leaf, key, scale = row
        wide = sum_dtype(leaf.dtype)
        epsilon = self.plan.noise.epsilon.draw(key, leaf.shape, letters)
        moved = leaf.astype(wide) + (self.sigma * scale).astype(wide) * epsilon.astype(wide)
        return _rounded(moved, moved_dtype(self.noise, letters, leaf.dtype))

    def _groups(self, indices: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Returns the leaves that are moved in one loop, small ones of a kind, with their letters.

        A leaf's generator is code of its own to compile; a loop has it once. Large leaves stay
        alone, so that nothing of theirs is copied.
        """
        groups: dict[Any, list[int]] = {}
        for i in indices:
            leaf, letters = self.leaves[i], self.plan.letters[i]
            shape = self.shape(i)
            alone = i if math.prod(shape) > _GROUPED_LEAF else None
            groups.setdefault((letters, shape, leaf.dtype, alone), []).append(i)
        return [(letters, members) for (letters, *_), members in groups.items()]


def moves(
    params: Any, expert: Population, scales: jax.Array | np.ndarray, plan: Plan | None = None
) -> Moves:
    """Returns what moves each leaf of one expert; takes what `apply_noise` takes."""
    plan = make_plan(params, expert.noise) if plan is None else plan
    leaves, structure = jax.tree_util.tree_flatten(params)
    # Constants of a caller's jit must not be folded: folded arithmetic rounds differently.
    ids, sigmas, signs, held = jax.lax.optimization_barrier(
        (expert.ids, expert.sigmas, expert.signs, scales)
    )
    chosen = [i for i, use in enumerate(plan.chosen) if use]
    root = jax.random.fold_in(expert.key, ids)
    # A loop of at least two, so that keys are held: fused, each use would fold them again.
    hashes = [plan.hashes[i] for i in chosen]
    every = np.asarray([*itertools.chain(*hashes), hashes[0][0]], np.uint32)
    keys = jax.lax.map(lambda leaf_hash: threefry.fold_in(root, leaf_hash), every)
    ends = [int(n) for n in np.cumsum([len(rows) for rows in hashes])]
    leaves = [jnp.asarray(x) if use else x for x, use in zip(leaves, plan.chosen, strict=True)]
    return Moves(
        plan=plan,
        leaves=leaves,
        structure=structure,
        root=expert.key,
        keys={
            i: keys[end - len(rows) : end]
            for i, rows, end in zip(chosen, hashes, ends, strict=True)
        },
        sigma=signs * sigmas,
        scales=held,
    )


def apply_noise(
    params: Any, expert: Population, scales: jax.Array | np.ndarray, plan: Plan | None = None
) -> Any:
    """Computes θ + (sign·σ·scale)·ε for one expert; pure, for use inside jit, vmap and pmap.

    Noise is drawn and added in float32 (float64 leaves: added in float64) and rounded once to the
    leaf's dtype; a matrix of 16 bits under a law with `rounded=False` is not, and is float32.
    Leaves that the plan leaves out are returned as they are.

    Args:
      params: θ.
      expert: a population of no axis.
      scales: `leaf_scales(params, plan)`.
      plan: `make_plan(params, expert.noise)`; None makes it.

    Returns:
      A pytree like `params`. Memory: one copy of the perturbed leaves.
    """
    ready = moves(params, expert, scales, plan)
    moved = ready.moved(list(ready.keys))
    out = [moved.get(i, leaf) for i, leaf in enumerate(ready.leaves)]
    return jax.tree_util.tree_unflatten(ready.structure, out)


def apply_sum(
    params: Any, terms: Population, scales: jax.Array | np.ndarray, plan: Plan | None = None
) -> Any:
    """Computes θ + Σ_m (sign_m·σ_m·scale)·ε_m over M experts; pure, for use inside jit and vmap.

    Added one after another in float32 (float64 leaves: in float64) and rounded once to the leaf's
    dtype (with `rounded=False` as `apply_noise` does). A term of σ = 0 adds nothing, so that a sum
    with one other term has the bits of that expert. Noise of a low-rank law is built.

    Args:
      params: θ.
      terms: M experts.
      scales: `leaf_scales(params, plan)`.
      plan: `make_plan(params, terms.noise)`; None makes it.

    Returns:
      A pytree like `params`. Memory: one copy of the perturbed leaves in float32, and one more.
    """
    plan = make_plan(params, terms.noise) if plan is None else plan
    leaves, structure = jax.tree_util.tree_flatten(params)
    wide = [
        jnp.asarray(x).astype(sum_dtype(jnp.asarray(x).dtype)) if use else x
        for x, use in zip(leaves, plan.chosen, strict=True)
    ]

    def add(moved: list[Any], row: tuple) -> tuple[list[Any], None]:
        tree = jax.tree_util.tree_unflatten(structure, moved)
        ids, sigmas, signs = row
        expert = Population(terms.key, ids, sigmas, signs, terms.noise)
        return jax.tree_util.tree_leaves(apply_noise(tree, expert, scales, plan)), None

    moved, _ = jax.lax.scan(add, wide, (terms.ids, terms.sigmas, terms.signs))
    out = [
        _rounded(m, moved_dtype(plan.noise, letters, jnp.asarray(x).dtype)) if use else x
        for m, x, use, letters in zip(moved, leaves, plan.chosen, plan.letters, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, out)


_perturb = jax.jit(apply_noise, static_argnames="plan")


def perturb(params: Any, expert: Population) -> Any:
    """Returns one expert's parameters, θ + σ·ε, the same bits that scoring uses.

    Under a low-rank law with `rounded=False` scoring never rounds the step of a matrix, and nor
    does this: matrices of 16 bits come in float32. A function that takes them so gives what was
    scored, up to the rounding of its own arithmetic.

    Args:
      params: θ, any pytree of arrays; never modified.
      expert: one expert: `population[i]`, or a population of length 1.

    Returns:
      A pytree like `params`, but for the dtype of such matrices; memory one copy. The population's
      key is not consumed.

    Raises:
      ArgumentError: more than one expert.
      ParameterError: nothing to perturb (see `make_plan`).
    """
    if not isinstance(expert, Population):
        raise ArgumentError(f"expert must be a Population, got {type(expert).__name__}")
    if jnp.ndim(expert.ids):
        if len(expert) != 1:
            raise ArgumentError(
                f"perturb takes one expert, got {len(expert)}; pass experts[0], or use merge"
            )
        expert = expert[0]
    if not isinstance(expert.ids, jax.core.Tracer):
        check_key(expert.key)
    params = with_values("params", params)
    plan = make_plan(params, expert.noise)
    return _perturb(params, expert, leaf_scales(params, plan), plan=plan)
