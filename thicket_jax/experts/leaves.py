"""The leaves of a parameter tree: paths, path hashes, and which of them an expert moves."""

import dataclasses
import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ParameterError
from thicket_jax.experts.noise import Noise

_QUANTISED_SUFFIX = re.compile(r"(scale|scales|scale_inv|zero_point|zero_points|absmax)$")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which leaves of a parameter tree are perturbed. Static and hashable.

    Attributes:
      paths: the path of every leaf, in flattening order, parts joined by dots.
      chosen: whether each leaf is perturbed.
      skipped: (path, reason) of floating leaves and quantised ones that are left out.
      noise: the law that the plan was made for.
    """

    paths: tuple[str, ...]
    chosen: tuple[bool, ...]
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


def _is_quantised(dtype: Any) -> bool:
    """Integers (not booleans) and floats of at most 8 bits hold quantised weights."""
    if jnp.issubdtype(dtype, jnp.floating):
        return bool(jnp.finfo(dtype).bits <= 8)
    return bool(jnp.issubdtype(dtype, jnp.integer))


def plan(params: Any, noise: Noise) -> Plan:
    """Decides which leaves are perturbed, from shapes, dtypes and paths alone.

    Never perturbed: integers and booleans, 8-bit floats, and the scales of quantised tensors (a
    leaf named `...scale`, `...scales`, `...scale_inv`, `...zero_point(s)` or `...absmax` beside a
    quantised leaf of the same parent).

    Raises:
      ParameterError: no floating leaf, no leaf that matches `where`, or two leaf paths whose
        32-bit hashes collide (rename one of the two).
    """
    named = leaf_paths(params)
    dtypes: dict[str, Any] = {}
    for path, leaf in named:
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex | bool):
            raise ParameterError(
                f"params leaf {path or '(root)'!r} is a {type(leaf).__name__}, not an array"
            )
        found = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
        if isinstance(found, np.dtype) and found.kind in "OSUMmT":
            raise ParameterError(
                f"params leaf {path or '(root)'!r} is an array of {found}, not of numbers"
            )
        dtypes[path] = jax.dtypes.canonicalize_dtype(found, allow_extended_dtype=True)
    # A lone integer is a step counter: a scale beside it is an ordinary parameter.
    quantised_parents = {
        path.rpartition(".")[0]
        for path, leaf in named
        if np.ndim(leaf) and _is_quantised(dtypes[path])
    }
    chosen, skipped, candidates = [], [], []
    for path, _ in named:
        reason = None
        if _is_quantised(dtypes[path]):
            reason = f"quantised or integer ({dtypes[path]})"
        elif not jnp.issubdtype(dtypes[path], jnp.floating):
            reason = f"not floating ({dtypes[path]})"
        elif path.rpartition(".")[0] in quantised_parents and _QUANTISED_SUFFIX.search(path):
            reason = "scale of a quantised tensor"
        else:
            candidates.append(path)
        if reason is None and noise.where is not None and not re.search(noise.where, path):
            chosen.append(False)
            continue
        if reason is not None:
            skipped.append((path, reason))
        chosen.append(reason is None)
    if not candidates:
        raise ParameterError(
            f"params has no floating leaf to perturb; its {len(named)} leaves are: "
            + (", ".join(f"{p} ({d})" for p, d in list(dtypes.items())[:5]) or "none")
        )
    if not any(chosen):
        raise ParameterError(
            f"where={noise.where!r} matches none of the {len(candidates)} floating leaves, such as "
            + ", ".join(repr(path) for path in candidates[:3])
        )
    _check_hashes([path for path, _ in named])
    unknown = [path for path, _ in noise.axes if path not in dtypes]
    if unknown:
        raise ParameterError(
            f"noise axes name the leaf {unknown[0]!r}, which params has not; look at the function "
            "that takes these parameters with tj.matrix_axes"
        )
    return Plan(tuple(p for p, _ in named), tuple(chosen), tuple(skipped), noise)


def _check_hashes(paths: list[str]) -> None:
    seen: dict[int, str] = {}
    for path in paths:
        value = path_hash(path)
        if value in seen:
            raise ParameterError(
                f"leaf paths {seen[value]!r} and {path!r} have the same 32-bit hash, so they would "
                "get the same noise key; rename one of them"
            )
        seen[value] = path
