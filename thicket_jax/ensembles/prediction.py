"""Predictions of every expert of an ensemble, joined by a combine rule."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.ensembles.combine import WEIGHTED, Combine
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import plan
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.blocks import ExpertMap, expert_map


class Predictor:
    """Predictions of every expert of an ensemble, from one compiled program per batch shape.

    The program is kept for as long as batches have the same shapes; parameters are placed once.
    """

    def __init__(
        self,
        apply_fn: Callable[..., Any],
        params: Any,
        experts: Population,
        *,
        block_size: int | str = "auto",
        mapper: dv.Mapper,
        with_id: bool = False,
        stream: bool = False,
    ) -> None:
        """Takes what `ensemble` takes; `with_id` is that of `expert_map`."""
        check_experts("experts", experts)
        plan(params, experts.noise)
        self.apply_fn, self.experts, self.mapper = apply_fn, experts, mapper
        self.params = mapper.replicate(params)
        self.block_size, self.with_id, self.stream = block_size, with_id, stream
        self._maps: dict[Any, ExpertMap] = {}

    def __call__(self, batch: Any) -> Any:
        """Returns the experts' predictions, numpy [K, B, ...], best first."""
        batch = jax.tree.map(jnp.asarray, batch)
        leaves, structure = jax.tree.flatten(batch)
        shape = (structure, tuple((x.shape, str(x.dtype)) for x in leaves))
        if shape not in self._maps:
            self._maps[shape] = expert_map(
                self.apply_fn,
                self.params,
                batch,
                self.experts,
                mapper=self.mapper,
                block_size=self.block_size,
                with_id=self.with_id,
                stream=self.stream,
            )
        ready = self._maps[shape]
        ready.shared = (ready.shared[0], self.mapper.replicate(batch), *ready.shared[2:])
        parts = [chunk.outputs for chunk in ready.chunks(self.experts)]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def ensemble(
    apply_fn: Callable[[Any, Any], Any],
    params: Any,
    experts: Population,
    *,
    combine: Combine,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    stream: bool = False,
) -> Callable[[Any], Any]:
    """Returns `predict(batch)`: the experts' predictions, combined.

    Args:
      apply_fn: `(params, batch) -> predictions [B, ...]`, pure.
      params: θ; never modified.
      experts: K experts, best first.
      combine: `majority_vote`, `mean`, `median`, `mean_probs`, or any function of [K, B, ...].
      block_size, devices, backend, stream: as in `score`.

    Returns:
      A function of a batch; it compiles once per batch shape. Memory: one block of perturbed
      parameters, and K predictions on the host.

    Example:
      >>> import thicket_jax as tj
      >>> experts = tj.population(jax.random.key(0), 3, 0.1)
      >>> predict = ensemble(lambda p, x: x @ p["w"], {"w": jnp.ones(2)}, experts,
      ...                    combine=tj.mean)
      >>> predict(jnp.ones((5, 2))).shape
      (5,)
    """
    if not callable(combine):
        raise ArgumentError(f"combine={combine!r} is not a function; pass tj.majority_vote or such")
    if combine in WEIGHTED.values():
        name = getattr(combine, "__name__", "")
        raise ArgumentError(f"combine={name} needs weights; pass lambda x: {name}(x, weights)")
    predictor = Predictor(
        apply_fn,
        params,
        experts,
        block_size=block_size,
        mapper=dv.mapper(devices, backend, params),
        stream=stream,
    )
    return lambda batch: combine(predictor(batch))
