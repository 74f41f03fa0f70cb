"""A function of one expert's parameters, without building the parameters.

`Factored` is W plus a low-rank step: a matrix product with it is one with the shared W, and two
thin ones with the factors. `Deferred` is a leaf that is perturbed where it is used and dropped
after. The function knows of neither: `interpreter.call` runs its jaxpr on them.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.perturbation import Moves, apply_sum, is_narrow, moves
from thicket_jax.experts.population import Population
from thicket_jax.mapping import interpreter
from thicket_jax.mapping.deferred import Deferred
from thicket_jax.mapping.factored import BuildWarning, Factored, FactoredStack
from thicket_jax.mapping.factored_parts import Parts

_LOG = logging.getLogger("thicket_jax")
_ROUNDED = " is of 16 bits"


def evaluate(
    fn: Callable[..., Any],
    params: Any,
    expert: Population,
    scales: jax.Array | np.ndarray,
    plan: Plan,
    *rest: Any,
    stream: bool = False,
    named: set[str] | None = None,
) -> Any:
    """Returns `fn(θ + σ·ε, *rest)` for one expert; pure, for use inside jit, vmap and pmap.

    Under a low-rank law the noise of matrices is applied at the operations that use them (EGGROLL,
    arXiv 2511.16652, section 3), in float32 equal to the perturbed function to about 1e-5. A
    matrix that meets an operation without a rule is built there, and named in a log message.

    One law of rounding (`Noise.rounded`). Rounded: where a step meets 16 bits, it is rounded as the
    perturbed function would round it, so that a matrix held in them is built at first, and one that
    the function converts to them is built there. Not rounded: it never is; matrices of 16 bits
    stay implicit, and of `perturb` in float32. Under both, what is converted to 8 bits or whole
    numbers is built before, and what meets an operation without a rule is built in its own dtype.

    Args:
      fn: `(params, *rest) -> tree`, any traceable function.
      params: θ.
      expert: a population of no axis.
      scales: `leaf_scales(params, plan)`.
      plan: `make_plan(params, expert.noise)`.
      rest: further arguments.
      stream: perturb every dense leaf where it is used, instead of all of them at first: the same
        bits, drawn again for every use (in a loop: in every step).
      named: leaves that were named already; None names none.

    Returns:
      What `fn` returns. Memory: θ, the factors, and with `stream` the largest leaf; without it, the
      leaves whose noise is dense.
    """
    ready = moves(params, expert, scales, plan)
    kinds = {i: plan.letters[i] for i in ready.keys}
    narrow = []
    if plan.noise.rounded:
        narrow = [i for i, found in kinds.items() if found and is_narrow(ready.leaves[i].dtype)]
    kinds |= dict.fromkeys(narrow, "")
    dense = [i for i, letters in kinds.items() if not letters]
    values = dict(enumerate(ready.leaves))
    if stream:
        values |= {i: Deferred(ready, i) for i in dense}
    else:
        values |= ready.moved(dense)
        _name_narrow(ready, narrow, named)
    values |= _factored(ready, {i: x for i, x in kinds.items() if x}, named)
    return interpreter.call(fn, list(values.values()), params, *rest)


def evaluate_sum(
    fn: Callable[..., Any],
    params: Any,
    terms: Population,
    scales: jax.Array | np.ndarray,
    plan: Plan,
    *rest: Any,
    named: set[str] | None = None,
) -> Any:
    """Returns `fn` of `apply_sum(params, terms, scales, plan)`, of which no matrix is built.

    For a law with `rounded=False`: a sum of M steps of rank r is one of rank M·r. Takes and returns
    what `evaluate` does; an expert's own point is that expert up to the rounding of sums.
    """
    leaves = jax.tree.leaves(params)
    kinds = {i: x for i, x in enumerate(plan.letters) if x}
    dense = tuple(
        tuple(use and i not in kinds for use in moving) for i, moving in enumerate(plan.moving)
    )
    values = dict(enumerate(leaves))
    if any(map(any, dense)):
        moved = apply_sum(params, terms, scales, dataclasses.replace(plan, moving=dense))
        values = dict(enumerate(jax.tree.leaves(moved)))
    found = [
        _factored(moves(params, terms[m], scales, plan), kinds, named) for m in range(len(terms))
    ]
    for i in kinds:
        each = [one[i].parts.folded() for one in found]
        # Each term's 1/√r goes into its left factor too, against the sum's own 1/√(M·r).
        lefts = [x.left * np.float32(math.sqrt(len(each))) for x in each]
        left, right = jnp.concatenate(lefts), jnp.concatenate([x.right for x in each])
        together = dataclasses.replace(each[0], left=left, right=right)
        values[i] = Factored(together, found[0][i].warning)
    return interpreter.call(fn, list(values.values()), params, *rest)


def _name_narrow(ready: Moves, narrow: list[int], named: set[str] | None) -> None:
    """Says once which leaves are built because they are of 16 bits."""
    if not narrow or named is None or any(name.endswith(_ROUNDED) for name in named):
        return
    named.update(ready.plan.paths[i] + _ROUNDED for i in narrow)
    first = ready.leaves[narrow[0]]
    _LOG.warning(
        "%d leaves such as %r, %s, are built for every expert of a block (%s bytes each in all), "
        "with the rounding that experts have when they are exported; in float32, or under "
        "tj.low_rank(..., rounded=False), they need not be",
        len(narrow),
        ready.plan.paths[narrow[0]],
        first.dtype,
        f"{sum(ready.leaves[i].nbytes for i in narrow):,}",
    )


def _factored(
    ready: Moves, kinds: dict[int, str], named: set[str] | None
) -> dict[int, Factored | FactoredStack]:
    """Draws the factors; those of rows of one shape in one loop."""
    plan, groups = ready.plan, dict[Any, list[int]]()
    for i, letters in kinds.items():
        groups.setdefault((ready.shape(i), letters), []).append(i)
    found: dict[int, Factored | FactoredStack] = {}
    for (shape, letters), members in groups.items():
        keys = jnp.concatenate([ready.keys[i] for i in members])
        factors = ready.noise.epsilon.draw_factors(keys, shape, letters)
        begin, rounded = 0, ready.noise.rounded
        for i in members:
            end = begin + len(plan.rows[i])
            leaf, depth = ready.leaves[i], plan.stacked[i]
            left, right = (x[begin:end] for x in factors)
            begin, step = end, ready.sigma * ready.rows(i)[2]
            warning = BuildWarning(plan.paths[i], named, plan)
            if not depth:
                parts = Parts(leaf, left[0], right[0], step[0], letters, rounded)
                found[i] = Factored(parts, warning)
                continue
            slices = leaf.shape[:depth]
            step = (step * np.asarray(plan.moving[i], np.float32)).reshape(slices)
            left, right = (jnp.moveaxis(x, 0, 1) for x in (left, right))
            left, right = (x.reshape(len(x), *slices, *x.shape[2:]) for x in (left, right))
            parts = Parts(leaf, left, right, step, "b" * depth + letters, rounded)
            found[i] = FactoredStack(parts, warning, functools.partial(ready.leaf, i))
    return dict(sorted(found.items()))
