"""A function of one expert, and what names it in the key of a compiled program.

A key holds no reference to the function: programs of a function that is gone are dropped, and with
them what it closed over.
"""

import dataclasses
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.arguments import shapes_alone


@dataclasses.dataclass(frozen=True)
class Mapped:
    """What is mapped over experts.

    Attributes:
      call: `(params, data, id) -> tree` of one expert, pure; `id` is int32 [].
      owner: the user's function, by which what is compiled is found again and dropped.
      kind: what is made of that function, and all that this depends on.
    """

    call: Callable[[Any, Any, Any], Any]
    owner: "FunctionKey"
    kind: Hashable


class FunctionKey:
    """A function as a part of a key: equal for one function object, and dead when that is.

    A bound method is its object and its function: two of one object are equal, and what the
    object holds is read when a program is compiled, as it is under `jax.jit`.
    """

    __slots__ = ("_hash", "_owner", "function")

    def __init__(self, function: Any) -> None:
        """Takes any callable, hashable or not."""
        owner = function
        self.function = None
        if isinstance(function, types.MethodType):
            owner, self.function = function.__self__, function.__func__
        self._hash = hash((id(owner), self.function))
        try:
            self._owner: Callable[[], Any] = weakref.ref(owner)
        except TypeError:  # a builtin, or of a class with slots: held, as it closes over nothing
            self._owner = lambda: owner

    @property
    def alive(self) -> bool:
        """Whether the function still exists."""
        return self._owner() is not None

    def owns(self, function: Any) -> bool:
        """Whether this is the key of `function`."""
        return self == FunctionKey(function)

    def when_gone(self, action: Callable[..., Any], *arguments: Any) -> None:
        """Calls `action(*arguments)` once the function is gone."""
        owner = self._owner()
        if owner is not None and isinstance(self._owner, weakref.ref):
            weakref.finalize(owner, action, *arguments).atexit = False

    def __hash__(self) -> int:
        """Returns the hash that the function had, also when it is gone."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Whether both are one function; one that is gone equals only its own key."""
        if self is other:
            return True
        if not isinstance(other, FunctionKey) or self.function is not other.function:
            return False
        owner = self._owner()
        return owner is not None and owner is other._owner()


def mapped(function: Callable[..., Any], with_id: bool = False) -> Mapped:
    """Returns what is mapped for a user's function: the door behind which all functions take an id.

    Args:
      function: `(params, data) -> tree`; with `with_id`, `(params, data, id) -> tree`.
      with_id: whether it takes the expert's id.
    """
    owner = FunctionKey(function)
    call = function if with_id else _without_id(function)
    return Mapped(call, owner, ("outputs", with_id))


def _without_id(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def call(params: Any, data: Any, id_: Any) -> Any:
        del id_
        return function(params, data)

    return call


def output_shapes(call: Callable[[Any, Any, Any], Any], params: Any, data: Any) -> Any:
    """Returns what a function of one expert returns, by shapes alone.

    Args:
      call: `(params, data, id) -> tree`.
      params, data: its arguments, wherever they lie.

    Raises:
      ScoreError: something in what it returns is no array of numbers, or all of it is empty.
    """
    try:
        found = jax.eval_shape(call, shapes_alone(params), shapes_alone(data), np.int32(0))
    except TypeError as error:
        said = " ".join(str(error).split())
        if "returned a value of type" not in said:  # an error of the function's own
            raise
        kind = said.partition("returned a value of type")[2].partition(", which")[0].strip()
        raise ScoreError(f"the function returned a value of type {kind}; return arrays") from error
    leaves = jax.tree.leaves(found)
    if leaves and not any(leaf.size for leaf in leaves):
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in leaves)
        raise ScoreError(
            f"the function returned {shapes}, without any number; return some, of at least one item"
        )
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise ScoreError(
                f"the function returned {leaf.dtype}{list(leaf.shape)}; return numbers, such as "
                "jax.random.key_data(key)"
            )
    return found
