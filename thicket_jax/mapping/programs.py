"""One call of many experts as a compiled program, and the programs that are kept."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.experts.leaves import Plan
from thicket_jax.experts.perturbation import apply_noise, apply_sum
from thicket_jax.experts.population import Population
from thicket_jax.mapping import devices
from thicket_jax.mapping.functions import FunctionKey, Mapped, output_shapes
from thicket_jax.mapping.implicit import evaluate, evaluate_sum

_MOST_BLOCKS = 64  # blocks per call, M, at most
_MOST_OUTPUT_BYTES = 2**26  # of one call's outputs per device
_MOST_KEPT = 64
_NAMED: set[str] = set()  # leaves whose building was told, once a process
# What a program depends on beside its arguments: settings of JAX, also inside their contexts.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_debug_key_reuse",
    "jax_enable_checks",
    "jax_check_tracer_leaks",
    "jax_disable_jit",
)


@dataclasses.dataclass(frozen=True)
class How:
    """What a compiled program depends on beside its function and the shapes of its arguments.

    Attributes:
      plan: which leaves move, and by which law.
      prng: the name of the key's implementation.
      mapper: over which devices.
      block: experts per vmap, b.
      stream: whether a leaf is perturbed where it is used, and dropped after.
      terms: () for experts; (M,) for sums of M experts.
    """

    plan: Plan
    prng: str
    mapper: devices.Mapper
    block: int
    stream: bool
    terms: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled call, and how many blocks it takes at most, M."""

    run: Any
    blocks: int

    @property
    def temporary_bytes(self) -> int:
        """Bytes of temporaries on each device."""
        return devices.program_bytes(self.run)[1]

    @property
    def expert_bytes(self) -> int:
        """Bytes of temporaries of one expert, of a program of one-expert blocks.

        That may hold a second copy of a call's outputs; programs of larger blocks do not.
        """
        outputs, one = devices.program_bytes(self.run)
        return one - outputs if one > outputs else one


def settings() -> Hashable:
    """Returns the settings of JAX that a program depends on, as they are now."""
    return tuple(getattr(jax.config, name, None) for name in _SETTINGS)


_KEPT: collections.OrderedDict[Any, Any] = collections.OrderedDict()


def kept(owner: FunctionKey, key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what `make` made for this function and key, under the settings of JAX as they are.

    The last 64 things are kept, none longer than its function lives; what is kept must refer to
    neither the function nor its arguments.
    """
    whole = (owner, key, settings())
    if whole not in _KEPT:
        _KEPT[whole] = make()
        owner.when_gone(_KEPT.pop, whole, None)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    else:
        _KEPT.move_to_end(whole)
    return _KEPT[whole]


def describe(tree: Any) -> Hashable:
    """Returns structure, shapes, dtypes and places of a pytree of arrays, as a part of a key."""
    leaves, structure = jax.tree.flatten(tree)
    return _token(structure, tuple((x.shape, x.dtype, x.sharding) for x in leaves))


@functools.lru_cache(maxsize=4 * _MOST_KEPT)
def _token(*description: Any) -> Hashable:
    """One small object for equal descriptions, which is hashed and compared at once."""
    del description
    return object()


def program(function: Mapped, how: How, shared: tuple, described: Hashable) -> Program:
    """Returns the program for these arguments' shapes, compiled only if it is not kept.

    Args:
      function: of one expert.
      how: see `How`.
      shared: (params, data, scales [leaves], key words), on the devices.
      described: `describe` of params, scales and data.
    """
    key = (function.kind, how, described)
    return kept(function.owner, key, lambda: _compile(function, how, shared))


def _compile(function: Mapped, how: How, shared: tuple) -> Program:
    block, mapper, plan = how.block, how.mapper, how.plan
    params, data = shared[:2]
    shapes = output_shapes(function.call, params, data)
    size = block * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    num_blocks = int(np.clip(_MOST_OUTPUT_BYTES // max(size, 1), 1, _MOST_BLOCKS))

    def one(expert: Population, params: Any, data: Any, scales: Any) -> Any:
        if how.terms and not plan.noise.rounded:
            return evaluate_sum(
                function.call, params, expert, scales, plan, data, expert.ids[0], named=_NAMED
            )
        if how.terms:
            return function.call(apply_sum(params, expert, scales, plan), data, expert.ids[0])
        if how.stream or plan.noise.factored:
            return evaluate(
                function.call, params, expert, scales, plan, data, expert.ids,
                stream=how.stream, named=_NAMED,
            )  # fmt: skip
        return function.call(apply_noise(params, expert, scales, plan), data, expert.ids)

    def call(*arguments: Any) -> Any:
        params, data, scales, words, ids, sigmas, signs, count = arguments
        key = jax.random.wrap_key_data(words, impl=how.prng)
        axes: Any = Population(None, 0, 0, 0, plan.noise)  # type: ignore[arg-type]
        over_block = jax.vmap(one, in_axes=(axes, None, None, None))

        def run(columns: tuple) -> Any:
            ids, sigmas, signs = columns
            experts = Population(key, ids, sigmas, signs, plan.noise)
            if block > 1:
                return over_block(experts, params, data, scales)
            # A mapped axis of one changes layouts for the worse, copying what a loop carries.
            outputs = one(experts[0], params, data, scales)
            return jax.tree.map(lambda x, shape: jnp.asarray(x, shape.dtype)[None], outputs, shapes)

        def skip(_: tuple) -> Any:
            return jax.tree.map(lambda x: jnp.zeros((block, *x.shape), x.dtype), shapes)

        def block_or_padding(row: tuple) -> Any:
            return jax.lax.cond(row[0] < count, run, skip, row[1:])

        return jax.lax.map(block_or_padding, (jnp.arange(ids.shape[0]), ids, sigmas, signs))

    column = (mapper.count, num_blocks, block, *how.terms)
    split = mapper.hand(
        (
            np.zeros(column, np.int32),
            np.zeros(column, np.float32),
            np.zeros(column, np.float32),
            np.zeros(mapper.count, np.int32),
        ),
        split=True,
    )
    return Program(mapper.compile(call, shared, split), num_blocks)
