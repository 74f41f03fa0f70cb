"""What a user gives: arrays of numbers that have values, wherever they lie; and functions."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, shown
from thicket_jax.experts.kinds import canonical_dtype, is_number
from thicket_jax.experts.leaves import PARTITION, leaf_paths

_TEXT = "text is read on the host, by grade"


def check_arrays(name: str, tree: Any, values: bool = True) -> None:
    """Raises `ArgumentError` unless all leaves are arrays of numbers, or keys, with values.

    Inside jit, grad and vmap there are no values: what compiles programs of its own cannot be
    called there. Where `values` are not needed, shapes will do.
    """
    leaves = leaf_paths(tree)
    if values:
        _check_untraced(name, leaves)
    for path, leaf in leaves:
        wrong = _what_is_no_array(leaf, values)
        if wrong:
            raise ArgumentError(f"{name} leaf {path or '(root)'!r} is {wrong}")


def _check_untraced(name: str, leaves: Sequence[tuple[str, Any]]) -> None:
    with jax.transfer_guard("allow"):  # inside jit, whatever is made is traced
        inside = isinstance(jnp.zeros(()), jax.core.Tracer)
    if inside or any(isinstance(leaf, jax.core.Tracer) for _, leaf in leaves):
        raise ArgumentError(
            f"{name} is traced: this is called inside jit, grad or vmap, and compiles programs of "
            "its own; call it outside, or use tj.perturb there"
        )


def _what_is_no_array(leaf: Any, values: bool) -> str | None:
    """What a leaf is, and what to do about it, unless it is an array of numbers with values."""
    without = _without_values(leaf) if values else None
    if without is not None:
        return without
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and not isinstance(leaf, str | bytes):  # numpy's strings have one too
        if is_number(dtype):
            return None
        return f"of type array of {dtype}; give arrays of numbers: {_TEXT}"
    if isinstance(leaf, int | float | complex):
        return None
    advice = PARTITION if callable(leaf) else f"give arrays of numbers: {_TEXT}"
    return f"of type {type(leaf).__name__}; {advice}"


def _without_values(leaf: Any) -> str | None:
    """Why a leaf has no values, which a traced one may have; None if it has."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return f"of type {type(leaf).__name__}, a shape without values; give arrays"
    array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    if array and leaf.is_deleted():
        return "an array that was deleted or donated; give one that still has its values"
    return None


def with_values(name: str, tree: Any) -> Any:
    """Returns a tree in device memory; a leaf without values is an `ArgumentError`.

    Traced leaves are as they are: this is for what may be called inside jit.
    """
    for path, leaf in leaf_paths(tree):
        wrong = _without_values(leaf)
        if wrong:
            raise ArgumentError(f"{name} leaf {path or '(root)'!r} is {wrong}")
    return in_device_memory(tree)


def in_device_memory(tree: Any) -> Any:
    """Returns a tree whose arrays in a host's pinned memory are copied to their devices' own."""

    def moved(leaf: Any) -> Any:
        if not in_host_memory(leaf):
            return leaf
        return jax.device_put(leaf, leaf.sharding.with_memory_kind(_usual_memory(leaf)))

    return jax.tree.map(moved, tree)


def in_host_memory(leaf: Any) -> bool:
    """Whether an array lies in a host's memory beside its device, where nothing is computed."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return False
    if not leaf.sharding.addressable_devices:
        return False
    return leaf.sharding.memory_kind not in (None, _usual_memory(leaf))


def _usual_memory(leaf: jax.Array) -> str:
    """The kind of memory that an array's devices compute in."""
    device: Any = next(iter(leaf.sharding.addressable_devices))
    return str(device.default_memory().kind)


def shapes_alone(tree: Any) -> Any:
    """Returns a tree to be traced by shapes: arrays in a host's memory without their place."""

    def described(leaf: Any) -> Any:
        if not in_host_memory(leaf):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=leaf.weak_type)

    return jax.tree.map(described, tree)


def check_alike(name: str, tree: Any, known: Any) -> None:
    """Raises `ArgumentError` unless a tree has the leaves of another, in shape and dtype."""

    def described(tree: Any) -> dict[str, str]:
        return {
            path: f"{canonical_dtype(path, jnp.result_type(leaf))}{list(np.shape(leaf))}"
            for path, leaf in leaf_paths(tree)
        }

    given, wanted = described(tree), described(known)
    for path in dict.fromkeys((*wanted, *given)):
        if given.get(path) != wanted.get(path):
            raise ArgumentError(
                f"{name} leaf {path or '(root)'!r} is {given.get(path, 'not there')}, and was "
                f"{wanted.get(path, 'not there')}; give leaves of the same shapes and dtypes"
            )


def check_callable(name: str, value: Any, optional: bool = True) -> None:
    """Raises `ArgumentError` unless `value` is a function, or None where that will do."""
    if not callable(value) and not (optional and value is None):
        raise ArgumentError(f"{name}={shown(value)} is not a function")
