"""The sigma at which experts move a function by a given amount, so that sigmas can be compared.

A sigma of weights means something else in every model; a change of outputs does not.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, ScoreError, check_choice, check_count, shown
from thicket_jax.experts.arguments import check_arrays, check_callable
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, population
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.devices import nan_allowed
from thicket_jax.mapping.functions import Mapped, mapped, output_shapes
from thicket_jax.mapping.placement import Placement, place
from thicket_jax.scoring.layouts import check_batch

MEASURES = ("rms", "kl")
_SMALLEST, _LARGEST = 1e-12, 1e12  # sigmas that are tried
_FIRST, _STEP = 1e-3, 4.0


def calibrate_sigma(
    fn: Callable[[Any, Any], Any],
    params: Any,
    batch: Any,
    *,
    target: float,
    key: jax.Array,
    measure: str = "rms",
    noise: Noise | None = None,
    num: int = 16,
    tolerance: float = 0.01,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
) -> float:
    """Finds the sigma at which experts change the outputs of `fn` by `target`, on average.

    By bisection of log σ, with the same noise at every σ (so that the change depends on σ alone),
    in one compiled program. Sizes of models are to be compared at equal change, not at equal σ.

    Args:
      fn: `(params, batch) -> outputs`, an array; for `"kl"` logits [..., C].
      params: θ; never modified.
      batch: what `fn` is asked on, as in `tj.score`.
      target: the change, positive: of `"rms"` in the outputs' unit, of `"kl"` in nats.
      key: typed key, of the experts that are tried; not consumed.
      measure: `"rms"`: √ mean (y − y₀)² over all outputs, y₀ those of θ. `"kl"`: mean over
        positions of KL(softmax y₀ ‖ softmax y). Of each the mean over experts.
      noise: the law; default `tj.gaussian()`.
      num: experts that are averaged over.
      tolerance: of the change, relative.
      block_size, devices, backend: as in `tj.score`.

    Returns:
      σ. Memory: as `tj.score`, and the outputs of θ.

    Raises:
      ArgumentError: a target that no σ gives.
      ScoreError: outputs of θ are not one floating array of finite numbers.

    Example:
      >>> import thicket_jax as tj
      >>> sigma = calibrate_sigma(lambda w, x: x * w, jnp.ones(()), jnp.ones(4), target=0.1,
      ...                         key=jax.random.key(0), num=256)
      >>> 0.1 < sigma < 0.15  # the mean of |ε| is 0.8
      True
    """
    check_callable("fn", fn, optional=False)
    check_arrays("params", params)
    check_batch(batch)
    if not (_is_real(target) and 0 < target < math.inf):
        raise ArgumentError(f"target={shown(target)} must be a positive number")
    if not (_is_real(tolerance) and 0 < tolerance < 1):
        raise ArgumentError(f"tolerance={shown(tolerance)} must be between 0 and 1")
    check_choice("measure", measure, MEASURES)
    experts = population(key, check_count("num", num), _FIRST, noise=noise)
    placement = place(params, devices=devices, backend=backend, block_size=block_size)
    change = _changes(fn, params, batch, experts, measure, placement)
    return _solve(change, float(target), tolerance, measure)


def _is_real(value: Any) -> bool:
    """Whether a value is one real number."""
    if isinstance(value, jax.Array | np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _solve(
    change: Callable[[float], float], target: float, tolerance: float, measure: str
) -> float:
    """Bisects log σ; `change` may be infinite, and is taken to grow with σ."""
    low = high = _FIRST
    at_low = at_high = change(_FIRST)
    while at_high < target:
        low, at_low, high = high, at_high, high * _STEP
        if high > _LARGEST:
            raise ArgumentError(
                f"target={target:g} is out of reach: at sigma={low:g} experts change the outputs "
                f"by {at_low:g} ({measure}); lower the target"
            )
        at_high = change(high)
    while at_low > target:
        high, at_high, low = low, at_low, low / _STEP
        if low < _SMALLEST:
            raise ArgumentError(
                f"target={target:g} is out of reach: at sigma={high:g} experts still change the "
                f"outputs by {at_high:g} ({measure}), which is rounding; raise the target"
            )
        at_low = change(low)
    while True:
        middle = math.sqrt(low * high)
        found = change(middle)
        if abs(found - target) <= tolerance * target or high / low < 1 + tolerance / 100:
            return middle
        low, high = (middle, high) if found < target else (low, middle)


def _changes(
    fn: Callable[[Any, Any], Any],
    params: Any,
    batch: Any,
    experts: Population,
    measure: str,
    placement: Placement,
) -> Callable[[float], float]:
    """Returns σ → the mean change; infinite where an expert's outputs are not finite."""
    function = mapped(fn)
    output_shapes(function.call, params, batch)
    given = placement.mapper.around(batch).replicate((params, batch))
    with nan_allowed():
        base = jax.jit(function.call)(*given, np.int32(0))
    if not isinstance(base, jax.Array) or not jnp.issubdtype(base.dtype, jnp.floating):
        raise ScoreError(
            "fn must return one floating array, got "
            + (f"{base.dtype}{list(base.shape)}" if hasattr(base, "dtype") else str(type(base)))
        )
    if not bool(jnp.isfinite(base).all()):
        raise ScoreError("fn has NaN or infinite outputs at the unperturbed parameters; check them")
    if measure == "kl" and base.ndim < 1:
        raise ScoreError("fn must return logits [..., C] for measure='kl', got a scalar")
    # A block of more experts than there are would be padding.
    placement = dataclasses.replace(placement, most=len(experts))
    data = (batch, base)
    ready = expert_map(_change_of(function, measure), params, experts.noise, data, placement)

    def change(sigma: float) -> float:
        sigmas = jnp.full(len(experts), sigma, jnp.float32)
        moved = dataclasses.replace(experts, sigmas=sigmas)
        found = np.concatenate([chunk.outputs for chunk in ready.chunks(moved)]).astype(np.float64)
        return float(np.where(np.isfinite(found), found, np.inf).mean())

    return change


def _change_of(function: Mapped, measure: str) -> Mapped:
    """A function → how far its outputs are from those of θ, float32 []."""

    def rms(params: Any, data: Any, id_: Any) -> jax.Array:
        batch, base = data
        step = function.call(params, batch, id_).astype(jnp.float32) - base.astype(jnp.float32)
        return jnp.sqrt(jnp.square(step).mean())

    def kl(params: Any, data: Any, id_: Any) -> jax.Array:
        batch, base = data
        new = jax.nn.log_softmax(function.call(params, batch, id_).astype(jnp.float32), -1)
        old = jax.nn.log_softmax(base.astype(jnp.float32), -1)
        return (jnp.exp(old) * (old - new)).sum(-1).mean()

    call = rms if measure == "rms" else kl
    return Mapped(call, function.owner, ("change", measure))
