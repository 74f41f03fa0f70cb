"""How items lie in a batch, and the order in which every expert sees them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.arguments import check_arrays
from thicket_jax.experts.leaves import leaf_paths
from thicket_jax.mapping.functions import output_shapes

# Experts fold ids below 2**31 into the root key, the sigma draw 2**32 - 1, the tasks 2**31 + 1.
_ORDER_STREAM = 0xFFFFFFFE


@dataclasses.dataclass(frozen=True)
class Layout:
    """How items lie in a batch that has them elsewhere than on the leading axis of its leaves.

    Attributes:
      count: batch → number of its items, B; fillers do not count and come last.
      take: (batch, indices int [m]) → a batch of these items in this order; leaves that it passes
        on as they are, such as keys, are the same for every piece.
      axes: leading axes of a score function's output that number the items, the last fastest.
    """

    count: Callable[[Any], int]
    take: Callable[[Any, np.ndarray], Any]
    axes: int = 1


def item_order(key: jax.Array, items: int) -> np.ndarray:
    """Returns the order in which every expert sees the items, int [B].

    A permutation from the population's key, folded with a number that is no expert's id: the
    noise of no expert depends on it. The key is not consumed.
    """
    stream = jax.random.fold_in(key, np.uint32(_ORDER_STREAM))
    high, low = np.asarray(jax.random.bits(stream, (2, items), "uint32")).astype(np.uint64)
    return np.argsort((high << np.uint64(32)) | low, kind="stable")


def leading_layout(call: Callable[..., Any], params: Any, batch: Any) -> Layout:
    """Returns the layout of a batch whose items are on the leading axis.

    B is the length of what the score function returns. Leaves of the batch with a leading axis of
    B are cut; all others are passed whole. `call` is `(params, batch, id) -> outputs`.

    Raises:
      ScoreError: one score for all items, or no leaf that has the items.
    """
    outputs = output_shapes(call, params, batch)
    lengths = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(outputs)}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(outputs))
        raise ScoreError(
            f"score_fn returned {found or 'nothing'}; selection in rounds needs one outcome per "
            "item, [B]: return it before the mean, or score every expert on everything (tj.score, "
            "select='all')"
        )
    (B,) = lengths
    if not any(_has_items(x, B) for x in jax.tree.leaves(batch)):
        shapes = ", ".join(str(list(np.shape(x))) for x in jax.tree.leaves(batch)) or "no arrays"
        raise ScoreError(
            f"score_fn returned {B} outcomes, but no leaf of the batch has {B} items on its "
            f"leading axis ({shapes}); put the items there, so that some of them can be taken"
        )

    def take(batch: Any, indices: np.ndarray) -> Any:
        return jax.tree.map(lambda x: _rows(x, indices) if _has_items(x, B) else x, batch)

    return Layout(lambda _: B, take)


def _has_items(leaf: Any, count: int) -> bool:
    return bool(np.ndim(leaf)) and np.shape(leaf)[0] == count


def check_batch(batch: Any, name: str = "batch") -> None:
    """Raises unless all leaves of a batch that have axes have the same leading one, of items.

    Leaves without axes, such as a typed key, are the same for every item.

    Args:
      batch: any pytree.
      name: of the argument, for the error.

    Raises:
      ArgumentError: a leaf that is no array of numbers.
      ScoreError: no items, or leaves that have different numbers of them.
    """
    leaves = _with_axes(batch, name)
    for path, leaf in leaves[1:]:
        first, whole = leaves[0]
        if np.shape(leaf)[0] != np.shape(whole)[0]:
            raise ScoreError(
                f"{name} leaves {first or '(root)'!r} {list(np.shape(whole))} and {path!r} "
                f"{list(np.shape(leaf))} have different leading axes; give every leaf one entry "
                "per item, and close over what is no item"
            )


def check_items(batch: Any, name: str = "batch") -> None:
    """Raises as `check_batch` does, but takes leaves that are whole for all items."""
    _with_axes(batch, name)


def _with_axes(batch: Any, name: str) -> list[tuple[str, Any]]:
    """The leaves that have axes, with their paths; none may be without items."""
    check_arrays(name, batch)
    leaves = [(path, leaf) for path, leaf in leaf_paths(batch) if np.ndim(leaf)]
    for path, leaf in leaves:
        if np.shape(leaf)[0] == 0:
            raise ScoreError(f"{name} leaf {path or '(root)'!r} has no items; give at least one")
    return leaves


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _rows(leaf: Any, indices: np.ndarray) -> Any:
    return leaf[indices] if is_key(leaf) else np.asarray(leaf)[indices]
