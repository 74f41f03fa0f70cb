"""One call of many experts as a compiled program, and the programs that are kept."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise, apply_sum
from thicket_jax.experts.population import Population
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.implicit import evaluate, is_implicit

_MOST_BLOCKS = 64  # blocks per call, M, at most
_MOST_OUTPUT_BYTES = 2**26  # of one call's outputs per device


@dataclasses.dataclass(frozen=True)
class _How:
    """What a compiled program depends on beside its function and shapes; see `ExpertMap`."""

    noise: Noise
    mapper: dv.Mapper
    block: int
    with_id: bool
    stream: bool
    terms: tuple[int, ...]


_PROGRAMS: collections.OrderedDict[Any, tuple[Any, int]] = collections.OrderedDict()
_MOST_PROGRAMS = 32
_NAMED: set[str] = set()  # leaves whose building was told, once a process


def _kept_program(fn: Callable[..., Any], how: _How, shared: tuple) -> tuple[Any, int]:
    """Returns the program for these arguments' shapes, compiled only if it is not kept.

    What is kept refers to the function, and to no array.
    """
    leaves, structure = jax.tree.flatten(shared)
    described = tuple((x.shape, str(x.dtype), x.sharding) for x in leaves)
    key = (fn, how, structure, described)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _compile(fn, how, shared)
        if len(_PROGRAMS) > _MOST_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    _PROGRAMS.move_to_end(key)
    return _PROGRAMS[key]


def _compile(fn: Callable[..., Any], how: _How, shared: tuple) -> tuple[Any, int]:
    """Compiles the program of a call; returns it with its number of blocks, M."""
    noise, block, mapper = how.noise, how.block, how.mapper
    shapes = jax.eval_shape(fn, *shared[:2], *((np.int32(0),) if how.with_id else ()))
    size = block * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    num_blocks = int(np.clip(_MOST_OUTPUT_BYTES // max(size, 1), 1, _MOST_BLOCKS))

    def one(expert: Population, params: Any, data: Any, scales: Any) -> Any:
        if how.terms:
            rest = (data, expert.ids[0]) if how.with_id else (data,)
            return fn(apply_sum(params, expert, scales), *rest)
        rest = (data, expert.ids) if how.with_id else (data,)
        if how.stream or is_implicit(noise):
            return evaluate(fn, params, expert, scales, *rest, stream=how.stream, named=_NAMED)
        return fn(apply_noise(params, expert, scales), *rest)

    def program(
        params: Any, data: Any, scales: Any, key: Any, ids: Any, sigmas: Any, signs: Any, count: Any
    ) -> Any:
        axes: Any = Population(None, 0, 0, 0, noise)  # type: ignore[arg-type]
        over_block = jax.vmap(one, in_axes=(axes, None, None, None))

        def run(columns: tuple) -> Any:
            ids, sigmas, signs = columns
            experts = Population(key, ids, sigmas, signs, noise)
            if block > 1:
                return over_block(experts, params, data, scales)
            # A mapped axis of one changes layouts for the worse, copying what a loop carries.
            outputs = one(experts[0], params, data, scales)
            return jax.tree.map(lambda x: x[None], outputs)

        def skip(_: tuple) -> Any:
            return jax.tree.map(lambda x: jnp.zeros((block, *x.shape), x.dtype), shapes)

        def block_or_padding(row: tuple) -> Any:
            return jax.lax.cond(row[0] < count, run, skip, row[1:])

        return jax.lax.map(block_or_padding, (jnp.arange(ids.shape[0]), ids, sigmas, signs))

    D = mapper.count
    column = (D, num_blocks, block, *how.terms)
    split = mapper.split(
        (
            np.zeros(column, np.int32),
            np.zeros(column, np.float32),
            np.zeros(column, np.float32),
            np.zeros(D, np.int32),
        )
    )
    return mapper.compile(program, shared, split), num_blocks
