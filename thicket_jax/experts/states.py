"""Which leaves of a tree are state and no weights: statistics, random keys, optimizer moments.

Told by what holds them: the type of a Flax NNX variable, the name of a Flax Linen collection, the
type of an Optax state. Neither library is imported: a tree of theirs has brought it along.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax

_COLLECTIONS = {"cache", "intermediates", "perturbations", "opt_state", "ema"}
_NAMED = re.compile("|".join(["batch_stats", *sorted(_COLLECTIONS)]))


@dataclasses.dataclass(frozen=True)
class State:
    """Why a leaf is state, and the part of its path by which `where` asks for it.

    Attributes:
      reason: in words.
      named: (start, stop) in the leaf's path; an expression that is found elsewhere in the path,
        such as the name of the layer, does not ask for the layer's statistics.
    """

    reason: str
    named: tuple[int, int]

    def asked(self, where: str | None, path: str) -> bool:
        """Whether the expression is found where the path names the state."""
        start, stop = self.named
        found = () if where is None else re.finditer(where, path)
        return any(one.start() < stop and one.end() > start for one in found)


def leaf_states(params: Any, paths: Sequence[str]) -> list[State | None]:
    """Returns for every leaf, in flattening order, why it is state; None for what is none.

    Args:
      params: θ.
      paths: of its leaves, as `leaves.leaf_paths` has them.
    """
    flatten = jax.tree_util.tree_flatten_with_path
    held = flatten(params, is_leaf=lambda x: _kind(x.__class__) != "")[0]
    kinds = {_kind(node.__class__) for _, node in held}
    # Nearly all trees: to look at each part of each path would take longer than the rest of a plan.
    if kinds <= {"", "Param"} and not any(map(_NAMED.search, paths)):
        return [None] * len(paths)
    above = {entries[:i] for entries, _ in held for i, x in enumerate(entries) if _is(x, "params")}
    found: list[State | None] = []
    for entries, node in held:
        kind = _kind(node.__class__)
        for inside, _ in flatten(node)[0]:
            whole = (*entries, *inside)
            if whole and whole[-1] == jax.tree_util.GetAttrKey("value"):
                whole = whole[:-1]
            found.append(_state(whole, len(entries), kind, above))
    return found


def _state(entries: tuple, outside: int, kind: str, above: set[tuple]) -> State | None:
    """What a leaf is whose path has so many parts outside of the node of this kind."""
    path = _text(entries)
    if kind.startswith("optimizer"):
        return State(kind, (0, len(_text(entries[: _until_field(entries, outside)]))))
    for i, entry in enumerate(entries):
        collection = _text((entry,))
        beside = entries[:i] in above and collection in _COLLECTIONS
        if beside or collection == "batch_stats":
            before = len(_text(entries[:i]))
            return State(f"collection {collection}, no parameters", (before, len(path)))
    if kind in ("", "Param"):
        return None
    last = len(path) - len(_text(entries[-1:]))
    return State(f"{kind}, no nnx.Param", (last, len(path)))


def _until_field(entries: tuple, outside: int) -> int:
    """How many parts of a path name the optimizer's field, `mu`; the rest are a parameter's own."""
    if outside < len(entries):
        return outside + 1
    names = [_text((entry,)) for entry in entries]
    begin = names.index("opt_state") + 1 if "opt_state" in names else 0
    while begin < len(names) - 1 and names[begin].isdigit():
        begin += 1
    return begin + 1


@functools.lru_cache(maxsize=1024)
def _kind(node: type) -> str:
    """`Param`, the name of another NNX variable, `optimizer state ...`; empty for other nodes."""
    bases = [(base.__module__.split("."), base.__name__) for base in node.__mro__]
    if bases[0][0][0] == "optax" and issubclass(node, tuple):
        return f"optimizer state {node.__name__}"
    variables = {name for parts, name in bases if parts[:2] == ["flax", "nnx"]}
    if "Variable" not in variables:
        return ""
    if "OptState" in variables:
        return f"optimizer state {node.__name__}"
    return "Param" if "Param" in variables else node.__name__


def _is(entry: Any, name: str) -> bool:
    return _text((entry,)) == name


def _text(entries: tuple) -> str:
    return jax.tree_util.keystr(entries, simple=True, separator=".")
