"""A leaf [L, ...] that is L leaves: a model whose layers are a scan keeps the names of its layers.

What holds the layers of a model in stacks says so in its tree, with a `Stack`. Slice i of a leaf
below it is a leaf of its own, with a path, a key and noise of its own, those that it has where the
layers are a list.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Slices:
    """The part of a leaf's path that stands for the number of a slice."""

    def __str__(self) -> str:
        """Returns what the path of a whole stack shows in its place."""
        return "*"


@jax.tree_util.register_pytree_with_keys_class
class Stack:
    """A tree whose leaves [L, ...] are stacks of L leaves.

    Experts, scores, exports and fingerprints are those of the same tree with its layers as a list:
    slice i of the leaf `mlp.kernel` of a stack at `layers` is the leaf `layers.i.mlp.kernel`. A
    function that scans over the stack has one layer of code, and streamed or low-rank noise of one
    layer at a time. Stacks nest: a leaf [L, E, ...] below two of them is L·E leaves, such as those
    of E experts in each of L layers.

    Attributes:
      tree: the stacked tree, such as the parameters of `flax.linen.scan` or `nnx.scan` with the
        layers as axis 0; what a function scans over.

    Example:
      >>> params = {"layers": Stack({"w": jnp.zeros((3, 4, 4))}), "out": jnp.zeros((4, 2))}
      >>> def apply(params, x):
      ...     step = lambda x, layer: (jnp.tanh(x @ layer["w"]), None)
      ...     return jax.lax.scan(step, x, params["layers"].tree)[0] @ params["out"]
    """

    def __init__(self, tree: Any) -> None:
        """Holds the tree."""
        self.tree = tree

    def __repr__(self) -> str:
        """Returns the tree with the name of the class around it."""
        return f"Stack({self.tree!r})"

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Slices, Any]], None]:
        """Returns the tree as the one child; JAX asks for it."""
        return ((Slices(), self.tree),), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Sequence[Any]) -> "Stack":
        """Returns a stack of the one child; JAX asks for it."""
        return cls(children[0])

    @classmethod
    def of(cls, layers: Sequence[Any]) -> "Stack":
        """Returns the stack of trees of one structure; memory: one more copy of them."""
        return cls(jax.tree.map(lambda *slices: jnp.stack(slices), *layers))


def stack_axes(entries: Sequence[Any]) -> tuple[int, ...]:
    """Returns where a leaf's path names its slices: once for each stack around it."""
    return tuple(i for i, entry in enumerate(entries) if isinstance(entry, Slices))


def row_of(leaf: Any, n: int, depth: int) -> Any:
    """Returns row n of an array with `depth` axes of slices, the last of them the fastest."""
    return leaf[tuple(int(k) for k in np.unravel_index(n, leaf.shape[:depth]))]
