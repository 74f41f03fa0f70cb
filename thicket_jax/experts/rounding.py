"""How many weights move: a step below half a unit in a weight's last place is rounded away.

Told once for parameters, a law and a sigma; where no expert differs from θ, it is an error.
"""

import collections
import dataclasses
import functools
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise, is_narrow, moved_dtype
from thicket_jax.experts.population import Population
from thicket_jax.experts.stacks import row_of

_LOG = logging.getLogger("thicket_jax")
_SAMPLE = 2**16  # weights of a leaf that are looked at, at most
_MOST_SIGMAS = 4  # of more than so many, the smallest and the largest are looked at
_MOST_KEPT = 64

Kept = tuple[tuple[Callable[[], Any], ...], tuple[str, ...]]
_KEPT: collections.OrderedDict[Any, Kept] = collections.OrderedDict()
_MEASURED: dict[tuple[Plan, str], float] = {}


def check(
    params: Any, plan: Plan, experts: Population, scales: jax.Array | np.ndarray
) -> tuple[str, ...]:
    """Says, once, where a step is below half a unit in the last place of most of a leaf's weights.

    Measured on at most 65,536 weights of each leaf, with ε drawn by the law, in the arithmetic of
    `apply_noise`. Nothing is compiled, unless no weight was found to move.

    Args:
      params: θ.
      plan: `make_plan(params, experts.noise)`.
      experts: those that are to be scored; points of a plane are not looked at.
      scales: `leaf_scales(params, plan)`.

    Returns:
      One sentence for each such sigma, with the share of the weights that move; also where they
      were told before.

    Raises:
      ArgumentError: no expert differs from θ.
    """
    sigmas = np.unique(np.asarray(experts.sigmas))
    sigmas = sigmas[sigmas > 0]
    if np.ndim(experts.ids) != 1 or not sigmas.size:
        return ()
    leaves = jax.tree.leaves(params)
    key = (tuple(map(id, leaves)), plan, sigmas.tobytes())
    kept = _KEPT.get(key)
    if kept is not None and all(ref() is x for ref, x in zip(kept[0], leaves, strict=True)):
        return kept[1]
    with jax.transfer_guard("allow"):
        notes = _look(params, plan, experts, sigmas, np.asarray(scales))
    for note in notes:
        _LOG.warning("%s", note)
    _KEPT[key] = (tuple(map(_reference, leaves)), notes)
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return notes


def measured(plan: Plan, path: str) -> float | None:
    """Returns the share of a leaf's weights that would move if they were rounded to its 16 bits.

    Of a stack, the mean over its slices.

    At the smallest sigma that was checked last; None if none was.
    """
    return _MEASURED.get((plan, path))


def _reference(leaf: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(leaf)
    except TypeError:  # a number
        return lambda: leaf


def _look(
    params: Any, plan: Plan, experts: Population, sigmas: np.ndarray, scales: np.ndarray
) -> tuple[str, ...]:
    leaves = jax.tree.leaves(params)
    chosen = [
        (i, n)
        for i, moving in enumerate(plan.moving)
        for n, use in enumerate(moving)
        if use and np.size(leaves[i])
    ]
    samples = {(i, n): _sample(leaves[i], n, plan.stacked[i]) for i, n in chosen}
    notes, moves = [], False
    _MEASURED.clear()
    tried = sigmas if len(sigmas) <= _MOST_SIGMAS else sigmas[[0, -1]]
    for sigma in reversed(tried.tolist()):
        found, kept = [], dict[tuple[Plan, str], float]()
        for i, n in chosen:
            sample, path = samples[i, n], plan.rows[i][n]
            letters, step = plan.letters[i], _step(sigma, scales[plan.starts[i] + n])
            epsilon = _epsilon(plan.noise, bool(letters))
            dtype = moved_dtype(plan.noise, letters, sample.dtype)
            share = _moved(sample, step * epsilon, dtype)
            moves |= share > 0
            still = 1 - _moved(sample, step, dtype)
            if still > 0.5 and step > 0:
                size = np.size(leaves[i]) // len(plan.rows[i])
                found.append(_Lost(path, sample.dtype.name, size, share))
            if dtype != sample.dtype:
                own = _moved(sample, step * epsilon, sample.dtype) / len(plan.rows[i])
                kept[plan, plan.paths[i]] = kept.get((plan, plan.paths[i]), 0.0) + own
        _MEASURED.update(kept)
        if found:
            notes.append(_note(sigma, found, plan, leaves, len(chosen)))
    if not moves and not _any_differs(params, plan, experts, scales):
        kinds = sorted({np.dtype(jnp.result_type(leaves[i])).name for i, _ in chosen})
        raise ArgumentError(
            f"no expert differs from the base: at sigma={sigmas[-1]:g} no weight moves in "
            f"{' or '.join(kinds) or 'no leaf at all'}; use a larger sigma{_way_out(plan, leaves)}"
        )
    return tuple(reversed(notes))


@dataclasses.dataclass(frozen=True)
class _Lost:
    """A leaf, or a slice of a stack, most of whose weights a step does not move."""

    path: str
    dtype: str
    size: int
    share: float


def _note(sigma: float, found: Sequence[_Lost], plan: Plan, leaves: list[Any], count: int) -> str:
    least = min(found, key=lambda x: x.share)
    overall = np.average([x.share for x in found], weights=[x.size for x in found])
    return (
        f"sigma={sigma:g} is below half a unit in the last place of most weights in {len(found)} "
        f"of {count} leaves: {100 * overall:.2g} % of their weights move, and of {least.path!r} "
        f"({least.dtype}) {100 * least.share:.2g} %; use a larger sigma{_way_out(plan, leaves)}"
    )


def _way_out(plan: Plan, leaves: list[Any]) -> str:
    """What else helps: float32 where there are 16 bits, and no rounding where a law has that."""
    narrow = [
        i
        for i, use in enumerate(plan.chosen)
        if use and is_narrow(moved_dtype(plan.noise, plan.letters[i], jnp.result_type(leaves[i])))
    ]
    if not narrow:
        return ""
    matrices = any(plan.letters[i] for i in narrow)
    return ", or weights in float32" + (", or rounded=False of low_rank" if matrices else "")


def _step(sigma: float, scale: Any) -> np.float32:
    """σ·scale, which is 0 where it is below the range of float32, as it is on the devices."""
    with np.errstate(under="ignore", over="ignore"):
        step = np.float32(sigma) * np.float32(scale)
    return step if step >= np.finfo(np.float32).tiny else np.float32(0)


@functools.lru_cache(maxsize=16)
def _epsilon(noise: Noise, matrix: bool) -> np.ndarray:
    # Of a seed that nobody draws weights from: they would be these very numbers.
    rng = np.random.default_rng(0x7468_6963_6B65_7431)
    return np.asarray(noise.epsilon.sample(rng, _SAMPLE, matrix), np.float32)


def _sample(leaf: Any, n: int, depth: int) -> np.ndarray:
    """Returns at most 65,536 weights, evenly over the leaf; of a sharded one, of its first part.

    Of a stack, with `depth` axes of slices, those of row n.
    """
    if isinstance(leaf, jax.Array):
        leaf = leaf.addressable_shards[0].data
    if depth:
        leaf = row_of(leaf, min(n, math.prod(leaf.shape[:depth]) - 1), depth)
    if isinstance(leaf, jax.Array):
        every = -(-leaf.size // _SAMPLE)
        if every > 1 and next(iter(leaf.devices())).platform != "cpu":
            leaf = _every(leaf, every)  # a host copy of the whole would stay with the array
    found = np.asarray(leaf).reshape(-1)
    found = found[:: -(-found.size // _SAMPLE)]
    return found.astype(jax.dtypes.canonicalize_dtype(found.dtype))


_every = jax.jit(lambda leaf, every: leaf.reshape(-1)[::every], static_argnums=1)


def _moved(weights: np.ndarray, step: Any, dtype: Any) -> float:
    """Returns the share of weights that w + step is not; a scalar step is tried both ways."""
    wide = np.float64 if weights.dtype == np.float64 else np.float32
    w = weights.astype(wide)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if not np.ndim(step):
            there = (w + step).astype(dtype).astype(wide) != w
            return float((there | ((w - step).astype(dtype).astype(wide) != w)).mean())
        tiled = np.resize(w, max(w.size, min(len(step), 4096)))
        return float(((tiled + step[: tiled.size]).astype(dtype).astype(wide) != tiled).mean())


def _any_differs(params: Any, plan: Plan, experts: Population, scales: np.ndarray) -> bool:
    """Whether any expert differs from θ in any bit: drawn, until one does."""
    return any(bool(_differs(params, experts[i], scales, plan)) for i in range(len(experts)))


@functools.partial(jax.jit, static_argnames="plan")
def _differs(params: Any, expert: Population, scales: Any, plan: Plan) -> jax.Array:
    moved = apply_noise(params, expert, scales, plan)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(moved), plan.chosen, strict=True)
    return jnp.stack(
        [(y != jnp.asarray(x).astype(y.dtype)).any() for x, y, use in pairs if use]
    ).any()
