"""Predictions of every expert of an ensemble, joined by a combine rule."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles.combine import Combine, is_weighted
from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.experts.arguments import check_arrays, check_callable
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.devices import nan_allowed
from thicket_jax.mapping.functions import mapped, output_shapes
from thicket_jax.mapping.placement import Placement, place
from thicket_jax.scoring.layouts import check_batch


class Predictor:
    """Predictions of every expert of an ensemble, from one compiled program per batch shape.

    The program is kept for as long as batches have the same shapes; parameters are placed once.
    """

    def __init__(
        self,
        apply_fn: Callable[..., Any],
        params: Any,
        experts: Population,
        placement: Placement,
        *,
        with_id: bool = False,
    ) -> None:
        """Takes what `ensemble` takes; `with_id` is that of `mapped`."""
        check_experts("experts", experts)
        self.experts = experts
        # A block of more experts than there are would be padding.
        placement = dataclasses.replace(placement, most=len(experts))
        self._map = expert_map(mapped(apply_fn, with_id), params, experts.noise, None, placement)

    def __call__(self, batch: Any) -> Any:
        """Returns the experts' predictions, numpy [K, B, ...], best first.

        Raises:
          ScoreError: predictions that are not one array [B, ...].
        """
        ready = self._map.on(batch)
        check_prediction(output_shapes(ready.function.call, ready.params, ready.data))
        return np.concatenate([chunk.outputs for chunk in ready.chunks(self.experts)])


def check_prediction(found: Any) -> None:
    """Raises `ScoreError` unless predictions of one expert, or their shapes, are one array.

    A combine rule takes [K, B, ...]: of tuples and of predictions without items it would take
    something else.
    """
    if not hasattr(found, "shape") or not found.shape or 0 in found.shape:
        kind = f"a {type(found).__name__}"
        if hasattr(found, "shape"):
            kind = f"{found.dtype}{list(found.shape)}"
        raise ScoreError(
            f"predict_fn returned {kind}; return one array of predictions, [B, ...], of B items"
        )


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
      >>> import jax.numpy as jnp, thicket_jax as tj
      >>> experts = tj.population(jax.random.key(0), 3, 0.1)
      >>> predict = ensemble(lambda p, x: x @ p["w"], {"w": jnp.ones(2)}, experts,
      ...                    combine=tj.mean)
      >>> predict(jnp.ones((5, 2))).shape
      (5,)
    """
    check_callable("apply_fn", apply_fn, optional=False)
    check_arrays("params", params)
    if not callable(combine):
        raise ArgumentError(f"combine={combine!r} is not a function; pass tj.majority_vote or such")
    if is_weighted(combine):
        name = getattr(combine, "__name__", "")
        raise ArgumentError(f"combine={name} needs weights; pass lambda x: {name}(x, weights)")
    placement = place(
        params, devices=devices, backend=backend, block_size=block_size, stream=stream
    )
    return combined(Predictor(apply_fn, params, experts, placement), combine)


def combined(
    predictor: Predictor, combine: Combine, check: Callable[[Any], None] = check_batch
) -> Callable[[Any], Any]:
    """Returns `predict(batch)`; `check` refuses what is no batch of items."""

    def predict(batch: Any) -> Any:
        check(batch)
        with nan_allowed():
            return combine(predictor(batch))

    return predict
