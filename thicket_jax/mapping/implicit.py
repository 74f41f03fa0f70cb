"""A function of one expert's parameters, without building the parameters.

`Factored` is W plus a low-rank step: a matrix product with it is one with the shared W, and two
thin ones with the factors. `Deferred` is a leaf that is perturbed where it is used and dropped
after. The function knows of neither: `interpreter.call` runs its jaxpr on them.
"""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from thicket_jax.experts import rounding
from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.perturbation import Moves, apply_sum, is_narrow, moves
from thicket_jax.experts.population import Population
from thicket_jax.mapping import interpreter
from thicket_jax.mapping.factored_parts import Parts
from thicket_jax.mapping.factored_rules import RULES
from thicket_jax.mapping.interpreter import Special, bind

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
    dense = tuple(use and i not in kinds for i, use in enumerate(plan.chosen))
    values = dict(enumerate(leaves))
    if any(dense):
        moved = apply_sum(params, terms, scales, dataclasses.replace(plan, chosen=dense))
        values = dict(enumerate(jax.tree.leaves(moved)))
    found = [
        _factored(moves(params, terms[m], scales, plan), kinds, named) for m in range(len(terms))
    ]
    for i in kinds:
        each = [one[i].parts for one in found]
        # Each term's step and 1/√r go into its left factor, against the sum's own 1/√(M·r).
        lefts = [x.left * (x.step * np.float32(math.sqrt(len(each)))) for x in each]
        left, right = jnp.concatenate(lefts), jnp.concatenate([x.right for x in each])
        together = dataclasses.replace(each[0], left=left, right=right, step=jnp.float32(1))
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


def _factored(ready: Moves, kinds: dict[int, str], named: set[str] | None) -> dict[int, "Factored"]:
    """Draws the factors; those of leaves of one shape in one loop."""
    groups: dict[Any, list[int]] = {}
    for i, letters in kinds.items():
        groups.setdefault((ready.leaves[i].shape, letters), []).append(i)
    found = {}
    for (shape, letters), members in groups.items():
        keys = jnp.stack([ready.keys[i] for i in members])
        left, right = ready.noise.epsilon.draw_factors(keys, shape, letters)
        for n, i in enumerate(members):
            step = ready.sigma * ready.scales[i]
            rounded = ready.noise.rounded
            parts = Parts(ready.leaves[i], left[n], right[n], step, letters, rounded)
            found[i] = Factored(parts, _BuildWarning(ready.plan.paths[i], named, ready.plan))
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True)
class _BuildWarning:
    """Names a leaf that had to be built, once."""

    path: str
    named: set[str] | None
    plan: Plan | None = None

    def give(self, array: jax.Array, why: str, rounds: bool) -> None:
        """Says so; `rounds`: to 16 bits, under a law that otherwise does not."""
        leaf = f"{self.path} {why}"
        if self.named is None or leaf in self.named:
            return
        self.named.add(leaf)
        share = rounding.measured(self.plan, self.path) if rounds and self.plan else None
        lost = f", and its step is rounded to {array.dtype} there" if rounds else ""
        lost += "" if share is None else f", which moves {100 * share:.2g} % of its weights"
        if why == "convert_element_type":
            reason = "a conversion to fewer bits rounds W and the step together"
        else:
            reason = f"{why!r} has no rule for low-rank noise"
        _LOG.warning(
            "leaf %r %s is built for every expert of a block (%s bytes each): %s%s",
            self.path,
            list(array.shape),
            f"{array.nbytes:,}",
            reason,
            lost,
        )


class Factored(Special):
    """W + step·ε, ε of low rank, not built unless an operation has no rule for it."""

    def __init__(
        self, parts: Parts, warning: _BuildWarning, source: "Factored | None" = None
    ) -> None:
        """Holds the parts; `source` is the value that this one is a view of, in this scope."""
        self.parts, self.warning, self.source = parts, warning, source
        self.base = parts.base
        # Built before a loop, a step would be rounded with W where the loop's body need not.
        self.hoisted = parts.rounded
        self.held: jax.Array | None = None
        self.built_for = None

    def fresh(self) -> "Factored":
        """Returns the value without what was built outside, unless it is built already."""
        if self.held is not None:
            copy = Factored(self.parts, self.warning)
            copy.held = self.held
            return copy
        return Factored(self.parts, self.warning)

    def build(self, why: str) -> jax.Array:
        """Returns θ + σ·ε of the leaf in its dtype, as `perturb` computes it up to rounding."""
        rounds = not self.parts.rounded and is_narrow(self.base.dtype)
        return self._summed(why, rounds).astype(self.base.dtype)

    def _summed(self, why: str, rounds: bool = False) -> jax.Array:
        """Returns θ + σ·ε of the leaf in float32, or in float64 where it is."""
        if self.held is None:
            self.warning.give(self.base, why, rounds)
            self.held = self.parts.summed()
            self.built_for = why
            if self.source is not None:
                self.source.built_for = why
        return self.held

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """Returns the stacks to scan over; a factor that does not span axis 0 is not scanned."""
        if self.held is not None and self.parts.rounded:
            return self.build("scan"), lambda array: array
        arrays, rebuild = self.parts.unstacked()
        return arrays, lambda slices: Factored(rebuild(slices), self.warning)

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Applies a rule, if the operation has one for these operands."""
        name = equation.primitive.name
        rule, built = RULES.get(name), self.held is not None and self.parts.rounded
        if rule is None or built or sum(x is self for x in values) > 1:
            return None
        position = next(i for i, x in enumerate(values) if x is self)
        # Only one operand can stay implicit; the others are arrays.
        others = [x.build(name) if isinstance(x, Special) and x is not self else x for x in values]
        others = [None if x is self else x for x in others]
        found = rule(self.parts, position, others, equation)
        if found is None and name == "convert_element_type" and not self.parts.rounded:
            return bind(equation, [self._summed(name)])  # to 8 bits, not by way of 16
        if found is None:
            return None
        return [self._view(x) if isinstance(x, Parts) else x for x in found]

    def _view(self, parts: Parts) -> "Factored":
        return Factored(parts, self.warning, self.source or self)


_VIEWS = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
}


class Deferred(Special):
    """A leaf that is perturbed where it is used, and not kept."""

    hoisted = False

    def __init__(self, ready: Moves, index: int, views: tuple[jex.JaxprEqn, ...] = ()) -> None:
        """Holds what moves leaf `index`, and the views of it that were taken since."""
        self.ready, self.index, self.views = ready, index, views
        self.base = ready.leaves[index]
        for view in views:
            (self.base,) = bind(view, [self.base])

    def build(self, why: str) -> jax.Array:
        """Returns θ + σ·ε of the leaf, the same bits as in `perturb`."""
        del why
        array = self.ready.leaf(self.index)
        for view in self.views:
            (array,) = bind(view, [array])
        return array

    def unstack(self) -> tuple[Any, Callable[[Any], Any]]:
        """Returns the whole leaf: its noise is drawn at once."""
        return self.build("scan"), lambda array: array

    def apply(self, equation: jex.JaxprEqn, values: list[Any]) -> list[Any] | None:
        """Builds the leaf and applies the operation, in a region of their own.

        Compilers order by what depends on what, and nothing keeps them from building every leaf at
        first. What is inside a branch lives no longer than the branch.
        """
        if equation.primitive.name in _VIEWS and len(values) == 1:
            return [Deferred(self.ready, self.index, (*self.views, equation))]

        def use() -> list[Any]:
            name = equation.primitive.name
            return bind(equation, [x.build(name) if isinstance(x, Special) else x for x in values])

        shapes = jax.eval_shape(use)
        # True, as no word has more bits; a compiler that saw that would merge the branches.
        word = jax.random.key_data(self.ready.root)[0]
        always = jax.lax.population_count(word) <= np.uint32(32)
        return jax.lax.cond(always, use, lambda: [jnp.zeros(x.shape, x.dtype) for x in shapes])
