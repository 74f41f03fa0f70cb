"""The leaves of a parameter tree: paths, path hashes, and which of them an expert moves."""

import dataclasses
import functools
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ParameterError
from thicket_jax.experts.kinds import canonical_dtype, is_quantised
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.stacks import stack_axes
from thicket_jax.experts.states import State, leaf_states

PARTITION = (
    "split a module with eqx.partition(module, eqx.is_array), give the arrays, and combine them "
    "with the rest inside the function"
)
_QUANTISED_SUFFIX = re.compile(r"(scale|scales|scale_inv|zero_point|zero_points|absmax)$")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which leaves of a parameter tree are perturbed. Static and hashable.

    A row is a leaf, or a slice of a leaf that is a `Stack`: what has a key and noise of its own.

    Attributes:
      paths: the path of every leaf, in flattening order, parts joined by dots; of a stack, with `*`
        for the number of the slice.
      rows: the paths of every leaf's rows.
      stacked: how many axes of slices each leaf has, 0 where it is no stack.
      moving: whether each row of each leaf is perturbed.
      hashes: the 32-bit number that is folded into each row's noise key.
      letters: of each leaf that is perturbed, what `Noise.letters` says of the axes of a row; empty
        where its noise is dense.
      skipped: (path, reason) of floating rows and quantised ones that are left out.
      noise: the law that the plan was made for.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    stacked: tuple[int, ...]
    moving: tuple[tuple[bool, ...], ...]
    hashes: tuple[tuple[int, ...], ...]
    letters: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    noise: Noise

    @functools.cached_property
    def chosen(self) -> tuple[bool, ...]:
        """Whether any row of each leaf is perturbed."""
        return tuple(any(moving) for moving in self.moving)

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each leaf's rows begin among the rows of all leaves."""
        return tuple(int(n) for n in np.cumsum([0, *map(len, self.rows)])[:-1])


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
    return [(_text(entries), leaf) for entries, leaf in _entries(params)]


def leaf_names(params: Any) -> list[tuple[str, tuple[str, ...], int]]:
    """Returns (path, paths of its rows, how many axes of slices it has) of every leaf; see `Plan`.

    A row's number counts the slices of the innermost stack fastest.
    """
    found = []
    for entries, leaf in _entries(params):
        at = stack_axes(entries)
        numbers = itertools.product(*map(range, _lengths(leaf, entries, at)))
        rows = tuple(_text(_numbered(entries, at, index)) for index in numbers)
        found.append((_text(entries), rows, len(at)))
    return found


def leaf_rows(params: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, array) of every leaf, each slice of a `Stack` as the leaf that it is.

    The order is that of the same tree with its layers as a list: all leaves of a layer, then those
    of the next. Memory: a slice is made when it is asked for; of shapes, it is a shape.
    """
    yield from _rows([(entries, leaf, ()) for entries, leaf in _entries(params)])


_Part = tuple[tuple, Any, tuple[int, ...]]
"""A leaf's path, the leaf, and the numbers of the slices that were chosen so far."""


def _rows(parts: Sequence[_Part]) -> Iterator[tuple[str, Any]]:
    waiting: list[tuple[int, _Part]] = []

    def layers() -> Iterator[tuple[str, Any]]:
        lengths = [
            _lengths(leaf, path, (at,), len(index))[0] for at, (path, leaf, index) in waiting
        ]
        for n in range(max(lengths, default=0)):
            yield from _rows(
                [
                    (_numbered(path, (at,), (n,)), leaf, (*index, n))
                    for length, (at, (path, leaf, index)) in zip(lengths, waiting, strict=True)
                    if n < length
                ]
            )
        waiting.clear()

    for entries, leaf, index in parts:
        at = next(iter(stack_axes(entries)), None)
        if waiting and (at is None or waiting[0][1][0][: at + 1] != entries[: at + 1]):
            yield from layers()
        if at is None:
            yield _text(entries), _slice(leaf, index)
        else:
            waiting.append((at, (entries, leaf, index)))
    yield from layers()


def _entries(params: Any) -> list[tuple[tuple, Any]]:
    found = []
    for entries, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if entries and entries[-1] == jax.tree_util.GetAttrKey("value"):
            entries = entries[:-1]
        found.append((entries, leaf))
    return found


def _text(entries: Sequence[Any]) -> str:
    return jax.tree_util.keystr(tuple(entries), simple=True, separator=".")


def _numbered(entries: Sequence[Any], at: Sequence[int], index: Sequence[int]) -> tuple:
    """A path with numbers in the place of the slices at `at`."""
    found = list(entries)
    for i, n in zip(at, index, strict=True):
        found[i] = jax.tree_util.SequenceKey(n)
    return tuple(found)


def _lengths(leaf: Any, entries: Sequence[Any], at: Sequence[int], begin: int = 0) -> list[int]:
    """How many slices a leaf has along its axes of slices, from axis `begin` on."""
    shape = np.shape(leaf)[begin : begin + len(at)]
    if len(shape) < len(at):
        raise ParameterError(
            f"params leaf {_text(entries)!r} lies in a Stack, but has no axis of slices"
        )
    return [int(n) for n in shape]


def _slice(leaf: Any, index: tuple[int, ...]) -> Any:
    if not index:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[len(index) :], leaf.dtype)
    return leaf[index]


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
    described, names = [], leaf_names(params)
    states = leaf_states(params, [path for path, *_ in names])
    leaves = jax.tree.leaves(params)
    for leaf, (path, rows, stacked), state in zip(leaves, names, states, strict=True):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            if not isinstance(leaf, int | float | complex | bool):
                raise ParameterError(
                    f"params leaf {path or '(root)'!r} is a {type(leaf).__name__}, not an array"
                    + (f"; {PARTITION}" if callable(leaf) else "")
                )
            dtype = np.result_type(leaf)
        described.append(_Described(path, rows, stacked, np.shape(leaf)[stacked:], dtype, state))
    return _plan(tuple(described), noise, jax.config.read("jax_enable_x64"))


@dataclasses.dataclass(frozen=True)
class _Described:
    """A leaf as a plan sees it; `shape` is that of a row."""

    path: str
    rows: tuple[str, ...]
    stacked: int
    shape: tuple[int, ...]
    dtype: Any
    state: State | None


@functools.lru_cache(maxsize=64)
def _plan(described: tuple[_Described, ...], noise: Noise, x64: bool) -> Plan:
    """The plan of leaves that are described; `x64` is what the canonical dtypes depend on."""
    del x64
    dtypes = [canonical_dtype(leaf.path, leaf.dtype) for leaf in described]
    # A lone integer is a step counter: a scale beside it is an ordinary parameter.
    quantised_parents = {
        leaf.path.rpartition(".")[0]
        for leaf, dtype in zip(described, dtypes, strict=True)
        if (leaf.shape or leaf.stacked) and is_quantised(dtype)
    }
    moving, skipped = [], []
    candidates: list[str] = []
    for leaf, dtype in zip(described, dtypes, strict=True):
        reason = _reason(leaf.path, dtype, quantised_parents)
        if reason is None and leaf.state is not None:
            reason = None if leaf.state.asked(noise.where, leaf.path) else leaf.state.reason
        if reason is None:
            candidates += leaf.rows
        else:
            skipped += [(path, reason) for path in leaf.rows]
        found = (noise.where is None or re.search(noise.where, path) for path in leaf.rows)
        moving.append(tuple(reason is None and bool(matches) for matches in found))
    rows = [path for leaf in described for path in leaf.rows]
    if not candidates:
        raise ParameterError(
            f"params has no floating leaf to perturb; its {len(rows)} leaves are: "
            + (
                ", ".join(
                    f"{leaf.path} ({dtype})"
                    for leaf, dtype in zip(described[:5], dtypes, strict=False)
                )
                or "none"
            )
        )
    if not any(map(any, moving)):
        raise ParameterError(
            f"where={noise.where!r} matches none of the {len(candidates)} floating leaves, such as "
            + ", ".join(repr(path) for path in candidates[:3])
        )
    _check_masses(
        noise,
        [
            path
            for leaf, moves in zip(described, moving, strict=True)
            for path, use in zip(leaf.rows, moves, strict=True)
            if use
        ],
    )
    _check_hashes(rows)
    known = set(rows)
    unknown = [path for path, _ in noise.axes if path not in known]
    if unknown:
        raise ParameterError(
            f"noise axes name the leaf {unknown[0]!r}, which params has not; look at the function "
            "that takes these parameters with tj.matrix_axes"
        )
    epsilon = noise.epsilon
    return Plan(
        paths=tuple(leaf.path for leaf in described),
        rows=tuple(leaf.rows for leaf in described),
        stacked=tuple(leaf.stacked for leaf in described),
        moving=tuple(moving),
        hashes=tuple(
            tuple(path_hash(epsilon.hashed(path, leaf.shape)) for path in leaf.rows)
            for leaf in described
        ),
        letters=tuple(
            _letters(noise, leaf) if any(use) else ""
            for leaf, use in zip(described, moving, strict=True)
        ),
        skipped=tuple(skipped),
        noise=noise,
    )


def _letters(noise: Noise, leaf: _Described) -> str:
    """What the law says of the axes of a leaf's rows, which are of one kind."""
    found = {noise.letters(path, len(leaf.shape)): path for path in leaf.rows}
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise ParameterError(
            f"noise axes of {one!r} and {other!r} differ, but they are slices of one Stack, which "
            "a function uses alike; look at it again with tj.matrix_axes"
        )
    return next(iter(found), "")


def _reason(path: str, dtype: Any, quantised_parents: set[str]) -> str | None:
    """Why a leaf is never perturbed; None where it may be."""
    if is_quantised(dtype):
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
    for path, letters, leaf, stacked in zip(
        plan.paths, plan.letters, jax.tree.leaves(params), plan.stacked, strict=True
    ):
        if not letters:
            continue
        shape = np.shape(leaf)[stacked:]
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
