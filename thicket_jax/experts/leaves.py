"""The leaves of a parameter tree: paths, path hashes, and which of them an expert moves."""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ParameterError
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.states import State, leaf_states

PARTITION = (
    "split a module with eqx.partition(module, eqx.is_array), give the arrays, and combine them "
    "with the rest inside the function"
)
_QUANTISED_SUFFIX = re.compile(r"(scale|scales|scale_inv|zero_point|zero_points|absmax)$")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which leaves of a parameter tree are perturbed. Static and hashable.

    Attributes:
      paths: the path of every leaf, in flattening order, parts joined by dots.
      chosen: whether each leaf is perturbed.
      hashes: the 32-bit number that is folded into each leaf's noise key.
      letters: of each leaf that is perturbed, what `Noise.letters` says of its axes; empty where
        its noise is dense.
      skipped: (path, reason) of floating leaves and quantised ones that are left out.
      noise: the law that the plan was made for.
    """

    paths: tuple[str, ...]
    chosen: tuple[bool, ...]
    hashes: tuple[int, ...]
    letters: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    noise: Noise


def path_hash(path: str) -> int:
    """Returns the 32-bit hash of a leaf path that is folded into its noise key.

    The first four bytes of the SHA-256 of the path's UTF-8, big-endian.
    """
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")


def leaf_paths(params: Any) -> list[tuple[str, Any]]:
    """Returns (path, leaf) of every leaf; a path is its keys joined by dots.

    A trailing `.value` that a Flax NNX state adds to each variable is dropped, so that a state and
    its pure dict name a leaf alike.
    """
    found = []
    for entries, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if entries and entries[-1] == jax.tree_util.GetAttrKey("value"):
            entries = entries[:-1]
        found.append((jax.tree_util.keystr(entries, simple=True, separator="."), leaf))
    return found


@functools.lru_cache(maxsize=64)
def is_number(dtype: Any) -> bool:
    """Whether JAX has arrays of this dtype: numbers, booleans and keys."""
    try:
        if jnp.issubdtype(dtype, jax.dtypes.extended):
            return True
        jax.typeof(np.zeros((), dtype))
    except (TypeError, ValueError):
        return False
    return True


def _is_quantised(dtype: Any) -> bool:
    """Integers (not booleans) and floats of at most 8 bits hold quantised weights."""
    if jnp.issubdtype(dtype, jnp.floating):
        return bool(jnp.finfo(dtype).bits <= 8)
    return bool(jnp.issubdtype(dtype, jnp.integer))


def make_plan(params: Any, noise: Noise) -> Plan:
    """Decides which leaves are perturbed, from shapes, dtypes and paths alone.

    State is no weights and is left out, unless `where` asks for it by its own name: NNX variables
    that are no `nnx.Param` (batch statistics, caches), the Linen collection `batch_stats` and
    others beside `params`, optimizer states; see `states.py`. A plain dict has no kinds: in what
    `nnx.to_pure_dict` returns, a running `var` is a floating leaf like a weight, and moves. Give
    the state itself, as `nnx.split` returns it, or name the weights with `where`.

    Never perturbed: integers and booleans, keys of random numbers, 8-bit floats, and the scales of
    quantised tensors (a leaf named `...scale`, `...scales`, `...scale_inv`, `...zero_point(s)` or
    `...absmax` beside a quantised leaf of the same parent).

    Raises:
      ParameterError: no floating leaf, no leaf that matches `where`, a mass that no leaf takes, or
        two leaf paths whose 32-bit hashes collide (rename one of the two).
    """
    described, named = [], leaf_paths(params)
    states = leaf_states(params, [path for path, _ in named])
    for (path, leaf), state in zip(named, states, strict=True):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            if not isinstance(leaf, int | float | complex | bool):
                raise ParameterError(
                    f"params leaf {path or '(root)'!r} is a {type(leaf).__name__}, not an array"
                    + (f"; {PARTITION}" if callable(leaf) else "")
                )
            dtype = np.result_type(leaf)
        described.append((path, np.shape(leaf), dtype, state))
    return _plan(tuple(described), noise, jax.config.read("jax_enable_x64"))


# Path, shape and dtype of every leaf, and why it is state.
Described = tuple[tuple[str, tuple[int, ...], Any, State | None], ...]


@functools.lru_cache(maxsize=64)
def _plan(described: Described, noise: Noise, x64: bool) -> Plan:
    """The plan of leaves that are described; `x64` is what the canonical dtypes depend on."""
    del x64
    leaves = [(path, shape, canonical_dtype(path, dtype)) for path, shape, dtype, _ in described]
    # A lone integer is a step counter: a scale beside it is an ordinary parameter.
    quantised_parents = {
        path.rpartition(".")[0] for path, shape, dtype in leaves if shape and _is_quantised(dtype)
    }
    chosen, skipped, candidates = [], [], []
    for (path, _, dtype), (*_, state) in zip(leaves, described, strict=True):
        reason = _reason(path, dtype, quantised_parents)
        if reason is None and state is not None and not state.asked(noise.where, path):
            reason = state.reason
        if reason is None:
            candidates.append(path)
        else:
            skipped.append((path, reason))
        matches = noise.where is None or re.search(noise.where, path) is not None
        chosen.append(reason is None and matches)
    if not candidates:
        raise ParameterError(
            f"params has no floating leaf to perturb; its {len(leaves)} leaves are: "
            + (", ".join(f"{path} ({dtype})" for path, _, dtype in leaves[:5]) or "none")
        )
    if not any(chosen):
        raise ParameterError(
            f"where={noise.where!r} matches none of the {len(candidates)} floating leaves, such as "
            + ", ".join(repr(path) for path in candidates[:3])
        )
    paths = tuple(path for path, _, _ in leaves)
    _check_masses(noise, [path for path, use in zip(paths, chosen, strict=True) if use])
    _check_hashes(paths)
    known = set(paths)
    unknown = [path for path, _ in noise.axes if path not in known]
    if unknown:
        raise ParameterError(
            f"noise axes name the leaf {unknown[0]!r}, which params has not; look at the function "
            "that takes these parameters with tj.matrix_axes"
        )
    epsilon = noise.epsilon
    return Plan(
        paths=paths,
        chosen=tuple(chosen),
        hashes=tuple(path_hash(epsilon.hashed(path, shape)) for path, shape, _ in leaves),
        letters=tuple(
            noise.letters(path, len(shape)) if use else ""
            for (path, shape, _), use in zip(leaves, chosen, strict=True)
        ),
        skipped=tuple(skipped),
        noise=noise,
    )


def canonical_dtype(path: str, dtype: Any) -> Any:
    """Returns the dtype that JAX gives a leaf; one that is no number is a `ParameterError`."""
    if not is_number(dtype):
        raise ParameterError(
            f"params leaf {path or '(root)'!r} is an array of {dtype}, not of numbers"
        )
    return jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)


def _reason(path: str, dtype: Any, quantised_parents: set[str]) -> str | None:
    """Why a leaf is never perturbed; None where it may be."""
    if _is_quantised(dtype):
        return f"quantised or integer ({dtype})"
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"not floating ({dtype})"
    if path.rpartition(".")[0] in quantised_parents and _QUANTISED_SUFFIX.search(path):
        return "scale of a quantised tensor"
    return None


def check_useful_rank(params: Any, noise: Noise) -> None:
    """Raises unless a low-rank law's rank is at most the smaller side of some matrix that moves.

    A higher one costs time and gives matrices that are no simpler. Where a law names no axes yet,
    the sides of a leaf of more than two axes are not known, and the most that they can be counts.

    Args:
      params: θ, or its shapes.
      noise: the law.

    Raises:
      ParameterError: the rank is too high, or there is nothing to perturb; see `make_plan`.
    """
    plan = make_plan(params, noise)
    if not noise.factored:
        return
    largest, widest = 0, ""
    for path, letters, leaf in zip(plan.paths, plan.letters, jax.tree.leaves(params), strict=True):
        if not letters:
            continue
        shape = np.shape(leaf)
        sides = [
            math.prod(n for n, kind in zip(shape, letters, strict=True) if kind == side)
            for side in "rc"
        ]
        if noise.needs_axes and len(shape) > 2:
            sides = [math.isqrt(math.prod(shape))]
        if min(sides) > largest:
            largest, widest = min(sides), path
    if not largest and noise.rank > 1:
        raise ParameterError(
            f"rank={noise.rank} is of matrices, and no leaf that moves is one; use "
            f"noise={noise.factors!r}, which vectors have in any case"
        )
    if noise.rank > max(largest, 1):
        raise ParameterError(
            f"rank={noise.rank} is above the smaller side of every matrix; use {largest} at most, "
            f"the smaller side of {widest!r}, or noise='gaussian'"
        )


def _check_masses(noise: Noise, paths: Sequence[str]) -> None:
    """Raises unless every mass is the first that is found in the path of some leaf that moves."""
    taken = {
        next((text for text, _ in noise.masses if re.search(text, path)), None) for path in paths
    }
    for text, _ in noise.masses:
        if text not in taken:
            found = any(re.search(text, path) for path in paths)
            why = "only where an earlier one is" if found else "in none"
            raise ParameterError(
                f"masses: {text!r} is found {why} of the {len(paths)} leaves that move, such as "
                + ", ".join(repr(path) for path in paths[:3])
            )


def _check_hashes(paths: Sequence[str]) -> None:
    seen: dict[int, str] = {}
    for path in paths:
        value = path_hash(path)
        if value in seen:
            raise ParameterError(
                f"leaf paths {seen[value]!r} and {path!r} have the same 32-bit hash, so they would "
                "get the same noise key; rename one of them"
            )
        seen[value] = path
