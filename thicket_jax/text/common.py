"""Values that are one for all experts of a block: loops that end on them copy no expert's cache.

Each function returns what it is given, where there is one expert; under vmap, over experts, one
value for all. (A loop whose condition differs between experts would select, and so copy, all that
it carries at every step.)
"""

from typing import Any

import jax


@jax.custom_batching.custom_vmap
def any_expert(going: jax.Array) -> jax.Array:
    """Returns whether it holds for any expert, bool []."""
    return going


@any_expert.def_vmap
def _any_expert(axis_size: int, in_batched: list[bool], going: jax.Array) -> tuple[Any, bool]:
    del axis_size
    return any_expert(going.any(0) if in_batched[0] else going), False


@jax.custom_batching.custom_vmap
def of_experts(number: jax.Array) -> jax.Array:
    """Returns the sum over the experts, int32 []."""
    return number


@of_experts.def_vmap
def _of_experts(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[Any, bool]:
    summed = number.sum(0, dtype=number.dtype) if in_batched[0] else number * axis_size
    return of_experts(summed), False


@jax.custom_batching.custom_vmap
def largest(number: jax.Array) -> jax.Array:
    """Returns the largest of all experts, int32 []."""
    return number


@largest.def_vmap
def _largest(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[Any, bool]:
    del axis_size
    return largest(number.max(0) if in_batched[0] else number), False
