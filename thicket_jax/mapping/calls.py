"""Calls of a program: how large blocks are, how many go into a call, what runs out of memory."""

import dataclasses
import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, MemoryLimitError
from thicket_jax.experts.perturbation import is_narrow
from thicket_jax.experts.population import Population, prng_name
from thicket_jax.mapping import devices, programs
from thicket_jax.mapping.programs import How, Program

_LOG = logging.getLogger("thicket_jax")
_MOST_BLOCK = 1024  # experts per block, b, at most
_CALL_SECONDS = 1.0  # a call is made about this long: short enough to log, long enough to launch


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Experts `start` to `stop` of a population, with their outputs [stop − start, ...]."""

    start: int
    stop: int
    outputs: Any


@dataclasses.dataclass(frozen=True)
class Flight:
    """A launched call: experts `start` to `stop`, and its outputs or what the launch raised."""

    start: int
    stop: int
    outputs: Any = None
    error: Exception | None = None


@dataclasses.dataclass
class Pace:
    """What calls have shown so far; shared by all that run one function.

    Attributes:
      compile_seconds: spent compiling.
      block_seconds: a block takes on each device; None before the first.
      smaller: the largest block that memory has room for, once a call ran out of it.
      ready: kind of key, terms and settings of JAX → how they are run, and the program.
    """

    compile_seconds: float = 0.0
    block_seconds: float | None = None
    smaller: int | None = None
    ready: dict[Any, tuple[How, Program]] = dataclasses.field(default_factory=dict)


class _NotMappedError(ArgumentError):
    """The function has an operation that has no rule for a block of several experts."""


class Call:
    """A map's program for one population, and its calls."""

    how: How
    program: Program

    def __init__(self, expert_map: Any, experts: Population, most: int | None) -> None:
        """Takes an `ExpertMap`; compiles its program for such experts, if that is not ready."""
        self.map, self.most = expert_map, most
        self.mapper, self.pace = expert_map.placement.mapper, expert_map.pace
        terms = tuple(np.shape(experts.ids)[1:])
        placement = expert_map.placement
        if terms and placement.stream:
            raise ArgumentError(
                "stream=True perturbs single experts where they are used, not points of a plane, "
                "which are sums of experts; leave it out"
            )
        words = np.asarray(jax.random.key_data(experts.key))
        self.shared = (
            expert_map.params,
            expert_map.data,
            expert_map.scales,
            self.mapper.hand(words, split=False),
        )
        self.columns = [np.asarray(x) for x in (experts.ids, experts.sigmas, experts.signs)]
        prng = prng_name(experts.key)
        self.how = How(expert_map.plan, prng, self.mapper, 1, placement.stream, terms)
        ready = (prng, terms, programs.settings())
        if ready not in self.pace.ready:
            self._take(self._size())
            self.pace.ready[ready] = (self.how, self.program)
        self.ready, (self.how, self.program) = ready, self.pace.ready[ready]

    def _take(self, block: int) -> None:
        """Compiles the program of this block size, or of a smaller one that fits."""
        while True:
            self.how = dataclasses.replace(self.how, block=block)
            try:
                self.program = self._compiled()
                return
            except NotImplementedError as error:
                if block == 1:
                    raise
                raise _NotMappedError(
                    f"block_size={block}: the function has an operation that JAX cannot map over "
                    f"experts ({' '.join(str(error).split())[:200]}); use block_size=1 or 'auto'"
                ) from error
            except jax.errors.JaxRuntimeError as error:
                if not devices.is_out_of_memory(error):
                    raise
                block = self._smaller(error)

    def _compiled(self) -> Program:
        began = time.monotonic()
        try:
            return programs.program(self.map.function, self.how, self.shared, self.map.described)
        finally:
            self.pace.compile_seconds += time.monotonic() - began

    def halve(self, error: Exception) -> None:
        """Goes on with blocks of half the size; `error` says what ran out of memory."""
        self._take(self._smaller(error))
        self.pace.ready[self.ready] = (self.how, self.program)

    def _smaller(self, error: Exception) -> int:
        if self.how.block == 1:
            raise MemoryLimitError(
                "the batch does not fit the device with one expert at a time (block_size=1): "
                f"{str(error).splitlines()[0]}; use fewer items or a smaller model"
            ) from None
        self.pace.smaller, self.pace.block_seconds = self.how.block // 2, None
        return self.how.block // 2

    def _size(self) -> int:
        """Experts per vmap: what was asked for, or what was found to be the best for this program.

        What `"auto"` finds is kept with the programs, as it depends on the same things.
        """
        asked = self.map.placement.block_size
        if asked == "auto":
            key = ("auto", self.map.function.kind, self.how, self.map.placement.most)
            found = programs.kept(self.map.function.owner, (key, self.map.described), self._best)
        else:
            found = int(asked)
        return found if self.pace.smaller is None else min(found, self.pace.smaller)

    def _best(self) -> int:
        """The largest power of two whose temporaries fit; sizes between were up to a tenth slower.

        Raises:
          MemoryLimitError: one expert needs more memory than the device has free.
        """
        device, placement = self.mapper.devices[0], self.map.placement
        most = _MOST_BLOCK
        if placement.most is not None:
            most = min(most, max(1, placement.most // self.mapper.count))
        self._take(1)
        one, free = self.program.expert_bytes, devices.free_bytes(device)
        if self.program.temporary_bytes > free:
            raise MemoryLimitError(
                "the batch does not fit the device with one expert at a time: it needs "
                f"{self.program.temporary_bytes:,} bytes of temporaries, {free:,} are free; use "
                "fewer items or a smaller model"
            )
        # One expert's leaves may be perturbed inside the product that uses them; a block's are not.
        one = max(one, self._held_bytes())
        block = int(np.clip(devices.working_bytes(device) // max(one, 1), 1, most))
        block = 1 << (block.bit_length() - 1)
        while block > 1:
            try:
                self._take(block)
            except _NotMappedError as error:
                said = " ".join(str(error.__cause__).split())
                _LOG.warning("experts are run one by one: JAX cannot map them (%s)", said)
                self._take(1)
                return 1
            block = self.how.block
            if self.program.temporary_bytes <= free:
                break
            block //= 2
        return int(devices.from_first(block))

    def _held_bytes(self) -> int:
        """Bytes of one expert's own leaves, as far as they are built at first."""
        plan, held = self.map.plan, 0
        leaves = jax.tree.leaves(self.map.params)
        for letters, use, leaf in zip(plan.letters, plan.chosen, leaves, strict=True):
            factored = bool(letters)
            if plan.noise.rounded and (self.how.terms or is_narrow(jnp.result_type(leaf))):
                factored = False  # built
            if use and not self.how.stream and not factored:
                held += np.size(leaf) * np.dtype(jnp.result_type(leaf)).itemsize
        return held

    def blocks(self, flight: Flight) -> int:
        """Returns the blocks of a call on each device."""
        return -(-(flight.stop - flight.start) // (self.mapper.count * self.how.block))

    def _wanted_blocks(self) -> int:
        seconds = self.pace.block_seconds
        wanted = 1 if seconds is None else max(1, int(_CALL_SECONDS / max(seconds, 1e-6)))
        # Clocks differ between processes, and all must launch the same call.
        return int(devices.from_first(min(wanted, self.program.blocks)))

    def launch(self, start: int) -> Flight:
        """Starts one call: experts as [D, M, b], each device with consecutive blocks."""
        D, b, M = self.mapper.count, self.how.block, self.program.blocks
        blocks, num = self._wanted_blocks(), len(self.columns[0])
        if self.most is not None:
            blocks = min(blocks, max(1, self.most // (D * b)))
        count = min(blocks, -(-(num - start) // (D * b)))
        stop = min(start + D * count * b, num)
        index = np.minimum(start + np.arange(D * count * b), stop - 1).reshape(D, count, b)

        def lay(column: np.ndarray) -> np.ndarray:
            rows = np.zeros((D, M, b, *column.shape[1:]), column.dtype)
            rows[:, :count] = column[index]
            return rows

        split = (*map(lay, self.columns), np.full((D,), count, np.int32))
        try:
            outputs = devices.launch(
                self.program.run, *self.shared, *self.mapper.hand(split, split=True)
            )
        except jax.errors.JaxRuntimeError as error:
            return Flight(start, stop, error=error)
        return Flight(start, stop, outputs)

    def collect(self, flight: Flight) -> Any:
        """Waits for a call; returns its outputs [n, ...] as numpy."""
        count, used = flight.stop - flight.start, self.blocks(flight)

        def flatten(leaf: np.ndarray) -> np.ndarray:
            rows = leaf.shape[0] * used * leaf.shape[2]  # counted, as a leaf may have no elements
            return leaf[:, :used].reshape(rows, *leaf.shape[3:])[:count]

        return jax.tree.map(flatten, self.mapper.gather(flight.outputs, flight.error))
