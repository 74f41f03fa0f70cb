"""A function of one expert → many experts: blocks of vmap inside lax.map, over devices.

The compiled program does not depend on N: it takes up to M blocks of b experts per device and a
count of blocks to do, and skips the rest, so that padding costs next to nothing.
"""

import dataclasses
import time
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.leaves import Plan, make_plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise, apply_sum
from thicket_jax.experts.population import Population
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import devices, programs
from thicket_jax.mapping.calls import Call, Chunk, Pace
from thicket_jax.mapping.functions import Mapped
from thicket_jax.mapping.implicit import evaluate, evaluate_sum
from thicket_jax.mapping.placement import Placement
from thicket_jax.mapping.programs import Program

_MOVED = jax.jit(apply_noise, static_argnums=3)
_SUMMED = jax.jit(apply_sum, static_argnums=3)


def _one_at_a_time() -> bool:
    """Whether jit is disabled, for debugging."""
    return bool(getattr(jax.config, "jax_disable_jit", False))


def _naming_nans(chunks: "Iterator[Chunk]") -> "Iterator[Chunk]":
    """Passes chunks on; where JAX is told to stop at a NaN, it says whose that is."""
    done = 0
    try:
        for chunk in chunks:
            yield chunk
            done = chunk.stop
    except FloatingPointError as error:
        raise ScoreError(
            f"the expert at position {done}: {' '.join(str(error).split())}; jax_debug_nans or "
            "jax_debug_infs is set, without which it would be an expert that failed"
        ) from error


@dataclasses.dataclass(frozen=True)
class ExpertMap:
    """A function of (params, data, id) mapped over experts, with what it needs on the devices.

    Attributes:
      function: what is mapped.
      plan: which leaves move, and by which law; made once.
      placement: where, and how many at once.
      params: θ, on the devices.
      scales: float32 [leaves], the factors on σ, on the devices.
      data: what the function gets beside parameters, on the devices.
      described: shapes and places of the three, as a part of a key.
      pace: what calls have shown so far.
    """

    function: Mapped
    plan: Plan
    placement: Placement
    params: Any
    scales: Any
    data: Any
    described: Hashable
    pace: Pace = dataclasses.field(default_factory=Pace)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return self.pace.compile_seconds

    def on(self, data: Any) -> "ExpertMap":
        """Returns the same function on other data; of the same shapes, it is the same program."""
        return self._with(self.params, self.scales, self.placement.mapper.replicate(data))

    def at(self, params: Any) -> "ExpertMap":
        """Returns the same function around another θ of the same shapes."""
        scales = np.asarray(leaf_scales(params, self.plan))
        params, scales = self.placement.mapper.replicate((params, scales))
        return self._with(params, scales, self.data)

    def of(self, function: Mapped) -> "ExpertMap":
        """Returns another function with the same arguments on the devices."""
        return dataclasses.replace(self, function=function, pace=Pace())

    def placed(self, placement: Placement) -> "ExpertMap":
        """Returns the same function with other blocks, on the same devices."""
        pace = Pace(compile_seconds=self.compile_seconds)
        return dataclasses.replace(self, placement=placement, pace=pace)

    def _with(self, params: Any, scales: Any, data: Any) -> "ExpertMap":
        described = programs.describe((params, scales, data))
        pace = self.pace if described == self.described else Pace()
        return dataclasses.replace(
            self, params=params, scales=scales, data=data, described=described, pace=pace
        )

    def chunks(self, experts: Population, most: int | None = None) -> Iterator[Chunk]:
        """Yields the outputs of every expert in order, as numpy.

        The next call is launched before the outputs of the last are fetched, so the devices work
        while the caller does. Memory on the devices: one block, and two calls' outputs.

        Args:
          experts: N experts under this map's noise law, of any key; or sums [N, M] of experts.
          most: experts per call at most, so that a caller can log at least so often.

        Raises:
          MemoryLimitError: a single expert does not fit.
        """
        if _one_at_a_time():
            yield from _naming_nans(self._one_by_one(experts))
            return
        ready = Call(self, experts, most)
        start, flying = 0, None
        clock = time.monotonic()
        while start < len(experts) or flying is not None:
            launched = None
            if start < len(experts):
                launched = ready.launch(start)
                start = launched.stop
            if flying is None:
                clock = time.monotonic()
            else:
                try:
                    outputs = ready.collect(flying)
                except jax.errors.JaxRuntimeError as error:
                    if not devices.is_out_of_memory(error):
                        raise
                    ready.halve(error)
                    start, flying = flying.start, None
                    continue
                now = time.monotonic()
                self.pace.block_seconds = (now - clock) / ready.blocks(flying)
                clock = now
                yield Chunk(flying.start, flying.stop, outputs)
            flying = launched

    def _one_by_one(self, experts: Population) -> Iterator[Chunk]:
        """Yields outputs expert by expert, without a program: for debugging, `jax.disable_jit`."""
        for i in range(len(experts)):
            expert = experts[i]
            id_ = jnp.asarray(np.ravel(expert.ids)[0])
            arguments = (self.params, expert, self.scales, self.plan)
            if self.plan.noise.rounded:
                move = _SUMMED if jnp.ndim(expert.ids) else _MOVED
                with jax.disable_jit(False):  # it is the user's function that is looked into
                    moved = move(*arguments)
                outputs = self.function.call(moved, self.data, id_)
            else:  # what perturbs by hand is not the function in its own dtypes
                evaluated = evaluate_sum if jnp.ndim(expert.ids) else evaluate
                with jax.disable_jit(False):
                    outputs = evaluated(self.function.call, *arguments, self.data, id_)
            yield Chunk(i, i + 1, jax.tree.map(lambda x: np.asarray(x)[None], outputs))

    def prepare(self, experts: Population) -> None:
        """Compiles the program for such experts now, if it has not been compiled."""
        if not _one_at_a_time():
            Call(self, experts, None)

    def block(self, experts: Population) -> int:
        """Returns the experts per vmap, b."""
        if _one_at_a_time():
            return 1
        return Call(self, experts, None).how.block

    def program(self, experts: Population) -> Program:
        """Returns the program that such experts run, compiled."""
        return Call(self, experts, None).program


def expert_map(
    function: Mapped, params: Any, law: Noise, data: Any, placement: Placement
) -> ExpertMap:
    """Puts parameters and data on the devices; nothing is compiled before it is called.

    Args:
      function: of one expert.
      params: θ, a pytree; replicated over the devices.
      law: of the experts.
      data: pytree that the function gets beside parameters; replicated too.
      placement: where, and how many at once.

    Raises:
      ParameterError: there is nothing to perturb; see `make_plan`.
    """
    plan = make_plan(params, law)
    placement = dataclasses.replace(placement, mapper=placement.mapper.around(data))
    placed = placement.mapper.replicate((params, np.asarray(leaf_scales(params, plan)), data))
    params, scales, data = placed
    return ExpertMap(function, plan, placement, params, scales, data, programs.describe(placed))
