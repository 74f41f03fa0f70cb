"""A function of one expert → many experts: blocks of vmap inside lax.map, over devices.

The compiled program does not depend on N: it takes up to M blocks of b experts per device and a
count of blocks to do, and skips the rest, so that padding costs next to nothing.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, MemoryLimitError, check_count
from thicket_jax.experts.leaves import plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.programs import _How, _kept_program

_MOST_BLOCK = 1024  # experts per block, b, at most
_CALL_SECONDS = 1.0  # a call is made about this long: short enough to log, long enough to launch


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Experts `start` to `stop` of a population, with their outputs [stop − start, ...]."""

    start: int
    stop: int
    outputs: Any


@dataclasses.dataclass(frozen=True)
class _Flight:
    """A launched call: experts `start` to `stop`, and its outputs or what the launch raised."""

    start: int
    stop: int
    outputs: Any = None
    error: Exception | None = None


@dataclasses.dataclass
class ExpertMap:
    """A function of (params, data) mapped over experts, with what it needs on the devices.

    Attributes:
      fn: `(params, data) -> tree`, pure; with `with_id`, `(params, data, id) -> tree`.
      shared: (params, data, scales, key), on the devices, put there once.
      noise: the law.
      mapper: over which devices.
      block: experts per vmap, b; halved when a device runs out of memory.
      with_id: whether `fn` takes the expert's id, int32 [], so that it can fold keys from it.
      stream: whether a leaf is perturbed where it is used, and dropped after.
      terms: () for experts; (M,) for sums of M experts, a population whose columns are [N, M].
      compile_seconds: spent compiling so far.
    """

    fn: Callable[..., Any]
    shared: tuple[Any, Any, Any, Any]
    noise: Noise
    mapper: dv.Mapper
    block: int
    with_id: bool = False
    stream: bool = False
    terms: tuple[int, ...] = ()
    compile_seconds: float = 0.0

    def on(self, data: Any) -> "ExpertMap":
        """Returns the same function on other data; of the same shapes, it is the same program."""
        params, _, *rest = self.shared
        return dataclasses.replace(self, shared=(params, self.mapper.replicate(data), *rest))

    def chunks(self, population: Population, most: int | None = None) -> Iterator[Chunk]:
        """Yields the outputs of every expert in order, as numpy.

        The next call is launched before the outputs of the last are fetched, so the devices work
        while the caller does. Memory on the devices: one block, and two calls' outputs.

        Args:
          population: N experts under this map's key and noise law.
          most: experts per call at most, so that a caller can log at least so often.

        Raises:
          MemoryLimitError: a single expert does not fit.
        """
        start, blocks, flying = 0, 1, None
        clock = time.monotonic()
        while start < len(population) or flying is not None:
            launched = None
            if start < len(population):
                launched = self._launch(population, start, blocks, most)
                start = launched.stop
            if flying is not None:
                try:
                    outputs = self._collect(flying)
                except jax.errors.JaxRuntimeError as error:
                    if not dv.is_out_of_memory(error):
                        raise
                    start, blocks, flying = flying.start, 1, None
                    self._halve(error)
                    continue
                finished, now = flying, time.monotonic()
                done = -(-(finished.stop - finished.start) // (self.mapper.count * self.block))
                blocks = max(1, int(_CALL_SECONDS * done / max(now - clock, 1e-6)))
                clock = now
                yield Chunk(finished.start, finished.stop, outputs)
            else:
                clock = time.monotonic()
            flying = launched

    def prepare(self) -> None:
        """Compiles the program now, if it has not been compiled."""
        self._program()

    def _halve(self, error: Exception) -> None:
        if self.block == 1:
            raise MemoryLimitError(
                "the batch does not fit the device with one expert at a time (block_size=1): "
                f"{str(error).splitlines()[0]}; use fewer items or a smaller model"
            ) from None
        self.block //= 2

    def _program(self) -> tuple[Any, int]:
        began = time.monotonic()
        while True:
            try:
                how = _How(
                    self.noise, self.mapper, self.block, self.with_id, self.stream, self.terms
                )
                found = _kept_program(self.fn, how, self.shared)
                break
            except jax.errors.JaxRuntimeError as error:
                if not dv.is_out_of_memory(error):
                    raise
                self._halve(error)
        self.compile_seconds += time.monotonic() - began
        return found

    def _launch(self, population: Population, start: int, blocks: int, most: int | None) -> _Flight:
        """Starts one call: experts as [D, M, b], each device with consecutive blocks."""
        program, num_blocks = self._program()
        D, b = self.mapper.count, self.block
        if most is not None:
            blocks = min(blocks, max(1, most // (D * b)))
        count = min(blocks, num_blocks, -(-(len(population) - start) // (D * b)))
        stop = min(start + D * count * b, len(population))
        index = np.minimum(start + np.arange(D * count * b), stop - 1).reshape(D, count, b)

        def lay(column: jax.Array) -> np.ndarray:
            rows = np.asarray(column)[index]
            return np.pad(rows, [(0, 0), (0, num_blocks - count)] + [(0, 0)] * (rows.ndim - 2))

        columns = (population.ids, population.sigmas, population.signs)
        split = (*(lay(column) for column in columns), np.full((D,), count, np.int32))
        try:
            outputs = dv.launch(program, *self.shared, *self.mapper.split(split))
        except jax.errors.JaxRuntimeError as error:
            return _Flight(start, stop, error=error)
        return _Flight(start, stop, outputs)

    def _collect(self, flight: _Flight) -> Any:
        count = flight.stop - flight.start

        def flatten(leaf: np.ndarray) -> np.ndarray:
            D, _, b = leaf.shape[:3]
            used = leaf[:, : -(-count // (D * b))]
            return used.reshape(-1, *leaf.shape[3:])[:count]

        return jax.tree.map(flatten, self.mapper.gather(flight.outputs, flight.error))


def _held_bytes(params: Any, noise: Noise, stream: bool, terms: tuple[int, ...]) -> int:
    """Returns the bytes of one expert's own leaves, as far as they are built at first."""
    law = plan(params, noise)
    held = 0
    for path, use, leaf in zip(law.paths, law.chosen, jax.tree.leaves(params), strict=True):
        if use and not stream and (terms or not noise.letters(path, np.ndim(leaf))):
            held += np.size(leaf) * np.dtype(jnp.result_type(leaf)).itemsize
    return held


def expert_map(
    fn: Callable[..., Any],
    params: Any,
    data: Any,
    population: Population,
    *,
    mapper: dv.Mapper,
    block_size: int | str = "auto",
    most: int | None = None,
    with_id: bool = False,
    stream: bool = False,
) -> ExpertMap:
    """Puts parameters and data on the devices and chooses the block size.

    Args:
      fn: `(params, data) -> tree` of one expert.
      params, data: pytrees; replicated over the mapper's devices.
      population: gives the key, the noise law, a bound on the block size, and whether experts or
        sums of experts are mapped.
      mapper: over which devices.
      block_size: experts per vmap, or `"auto"`: a program for one expert is compiled, its memory
        analysis read, and the largest block taken whose temporaries fit the device (an
        accelerator's free memory; a CPU core's own cache, where larger blocks are slower).
      most: with `"auto"`, experts in one block on all devices at most, so that a caller can log
        that often; default N.
      with_id: call `fn(params, data, id)` with the expert's id, int32 [].
      stream: perturb a leaf where it is used and drop it after; see `score`.

    Raises:
      ArgumentError: sums of experts with `stream`.
      MemoryLimitError: one expert needs more memory than the device has free.
    """
    scales = leaf_scales(params, population.noise)
    shared = mapper.replicate((params, data, scales, population.key))
    terms = tuple(np.shape(population.ids)[1:])
    if terms and stream:
        raise ArgumentError(
            "stream=True perturbs single experts where they are used, not points of a plane, which "
            "are sums of experts; leave it out"
        )
    fair = max(1, -(-len(population) // mapper.count))
    if block_size != "auto":
        block = min(check_count("block_size", block_size), fair)
        return ExpertMap(fn, shared, population.noise, mapper, block, with_id, stream, terms)
    fair = min(fair, _MOST_BLOCK, max(1, (most or len(population)) // mapper.count))
    chosen = ExpertMap(fn, shared, population.noise, mapper, 1, with_id, stream, terms)
    device = mapper.devices[0]
    outputs, one = dv.program_bytes(chosen._program()[0])
    free = dv.free_bytes(device)
    if one > free:
        raise MemoryLimitError(
            f"the batch does not fit the device with one expert at a time: it needs {one:,} bytes "
            f"of temporaries, {free:,} are free; use fewer items or a smaller model"
        )
    # A program of one-expert blocks may hold a second copy of a call's outputs; larger ones do not.
    one = one - outputs if one > outputs else one
    # One expert's leaves may be perturbed inside the product that uses them; a block's are held.
    one = max(one, _held_bytes(params, population.noise, stream, terms))
    chosen.block = int(np.clip(dv.working_bytes(device) // max(one, 1), 1, fair))
    # A power of two: sizes between were up to a tenth slower than the next one below.
    chosen.block = 1 << (chosen.block.bit_length() - 1)
    while chosen.block > 1 and dv.program_bytes(chosen._program()[0])[1] > free:
        chosen.block //= 2
    chosen.block = dv.from_first(chosen.block)
    return chosen
