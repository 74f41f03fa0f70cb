"""Runs a jaxpr on values that are not arrays: parameters that are perturbed where they are used.

A `Special` value stands for an array. Operations that have a rule for it give another one, or an
ordinary array; for every other operation it is built. Loops, branches and calls are entered, so
that what is inside sees the special value too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jex

# Calls that are entered: primitive → parameter that holds the inner jaxpr.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


class Special:
    """Stands for an array of the shape and dtype of `base`.

    Attributes:
      base: the unperturbed array.
      hoisted: whether a loop that would build it in every step gets it built, once, before.
      built_for: the operation that it was built for, once it was.
    """

    base: jax.Array
    hoisted: bool = True
    built_for: str | None = None

    def fresh(self) -> "Special":
        """Returns the value for use inside a loop or branch, without what was built outside."""
        return self

    def build(self, why: str) -> jax.Array:
        """Returns the array; `why` names the operation that needs it."""
        raise NotImplementedError

    def unstack(self) -> "tuple[Any, Callable[[Any], Any]]":
        """Returns (arrays to scan over, function from their slices to the value of one step)."""
        raise NotImplementedError

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Applies an operation that has this value among its operands; None: it has no rule."""
        raise NotImplementedError


def call(fn: Callable[..., Any], leaves: Sequence[Any], params: Any, *rest: Any) -> Any:
    """Returns `fn(params, *rest)` with `leaves`, arrays or special values, in place of params'.

    The function is traced on params; its outputs are arrays.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, *rest)
    outputs = _run_closed(closed, [*leaves, *jax.tree.leaves(rest)])
    return jax.tree.unflatten(jax.tree.structure(shapes), [_array(x, "return") for x in outputs])


def _array(value: Any, why: str) -> Any:
    return value.build(why) if isinstance(value, Special) else value


def bases(values: Sequence[Any]) -> list[Any]:
    """Returns the arrays that the values stand for, unperturbed."""
    return [x.base if isinstance(x, Special) else x for x in values]


def bind(equation: jex.JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Applies an operation to arrays."""
    parameters = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        found = equation.primitive.bind(*values, **parameters)
    return list(found) if equation.primitive.multiple_results else [found]


def sliced_row(equation: jex.JaxprEqn) -> int | None:
    """Returns n where an operation is x[n:n + 1], a whole row of the first axis."""
    if equation.primitive.name != "slice" or equation.params["strides"] is not None:
        return None
    shape = equation.invars[0].aval.shape  # type: ignore[attr-defined]
    begin, end = equation.params["start_indices"], equation.params["limit_indices"]
    whole = all(begin[1:][i] == 0 and end[1:][i] == n for i, n in enumerate(shape[1:]))
    return int(begin[0]) if whole and end[0] == begin[0] + 1 else None


def _run_closed(closed: Any, arguments: Sequence[Any]) -> list[Any]:
    return _run(*_opened(closed), arguments)


def _opened(closed: Any) -> tuple[jex.Jaxpr, Sequence[Any]]:
    """Returns the jaxpr and its constants; an open one has none, and newer ones are one record."""
    return getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())


def _run(jaxpr: jex.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    held: dict[jex.Var, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else held[atom]

    held.update(zip(jaxpr.constvars, consts, strict=True))
    held.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if any(isinstance(x, Special) for x in values):
            found = _special(equation, values)
        else:
            found = bind(equation, values)
        held.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _special(equation: jex.JaxprEqn, values: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in _CALLS:
        return _run_closed(equation.params[_CALLS[name]], values)
    if name in _CONTROL:
        return _CONTROL[name](equation, values)
    first = next(x for x in values if isinstance(x, Special))
    found = first.apply(equation, values)
    return bind(equation, [_array(x, name) for x in values]) if found is None else found


def _needed_outside(
    consts: list[Any], rest: Sequence[Any], body: Callable[[list[Any], Any], Any]
) -> list[Any]:
    """Builds the constants that a loop's body would build in every step, once, before it."""
    if not any(isinstance(x, Special) and x.hoisted for x in consts):
        return consts
    seen = _fresh(consts)
    jax.eval_shape(lambda arrays: body(seen, arrays), list(rest))
    return [
        x.build(look.built_for) if isinstance(x, Special) and look.built_for else x
        for x, look in zip(consts, seen, strict=True)
    ]


def _fresh(values: Sequence[Any]) -> list[Any]:
    return [x.fresh() if isinstance(x, Special) else x for x in values]


def _parts_of_scan(equation: jex.JaxprEqn) -> tuple[int, int]:
    """Returns how many of a scan's operands are constants, and how many are carried.

    Read off the shapes: outside, what is scanned has an axis that the body does not see. (The
    parameters that say it are called otherwise in every release of JAX.)
    """
    jaxpr = _opened(equation.params["jaxpr"])[0]

    def scanned(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(out.aval.shape) > len(own.aval.shape) for out, own in pairs)

    stacks = scanned(equation.invars, jaxpr.invars)
    carried = len(equation.outvars) - scanned(equation.outvars, jaxpr.outvars)
    return len(equation.invars) - carried - stacks, carried


def _scan(equation: jex.JaxprEqn, values: list[Any]) -> list[Any]:
    params = equation.params
    num_consts, num_carry = _parts_of_scan(equation)
    consts, rest = values[:num_consts], values[num_consts:]
    carry = [_array(x, "scan (carried)") for x in rest[:num_carry]]
    stacks = [x.unstack() if isinstance(x, Special) else (x, None) for x in rest[num_carry:]]
    arrays = [array for array, _ in stacks]

    def step(consts: list[Any], carry: list[Any], slices: list[Any]) -> tuple:
        inputs = [
            x if rebuild is None else rebuild(x)
            for x, (_, rebuild) in zip(slices, stacks, strict=True)
        ]
        out = _run_closed(params["jaxpr"], [*consts, *carry, *inputs])
        out = [_array(x, "scan (returned)") for x in out]
        return out[:num_carry], out[num_carry:]

    first = jax.tree.map(lambda x: x[0], arrays) if params["length"] else None
    if first is not None:
        consts = _needed_outside(consts, [carry, first], lambda c, r: step(c, *r))
    scanned: Any = jax.lax.scan(
        lambda carry, slices: step(_fresh(consts), carry, slices),
        carry,
        arrays,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*scanned[0], *scanned[1]]


def _while(equation: jex.JaxprEqn, values: list[Any]) -> list[Any]:
    params = equation.params
    a, b = params["cond_nconsts"], params["body_nconsts"]
    for_cond, for_body = values[:a], values[a : a + b]
    carry = [_array(x, "while (carried)") for x in values[a + b :]]

    def more(consts: list[Any], carry: Any) -> Any:
        return _array(_run_closed(params["cond_jaxpr"], [*consts, *carry])[0], "while")

    def body(consts: list[Any], carry: Any) -> Any:
        out = _run_closed(params["body_jaxpr"], [*consts, *carry])
        return [_array(x, "while (returned)") for x in out]

    for_cond = _needed_outside(for_cond, carry, more)
    for_body = _needed_outside(for_body, carry, body)
    return jax.lax.while_loop(
        lambda carry: more(_fresh(for_cond), carry),
        lambda carry: body(_fresh(for_body), carry),
        carry,
    )


def _cond(equation: jex.JaxprEqn, values: list[Any]) -> list[Any]:
    index, operands = _array(values[0], "cond (index)"), values[1:]

    def branch(closed: Any) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            return [_array(x, "cond (returned)") for x in _run_closed(closed, _fresh(operands))]

        return run

    return jax.lax.switch(index, [branch(closed) for closed in equation.params["branches"]])


_CONTROL = {"scan": _scan, "while": _while, "cond": _cond}
