"""Predictions of K experts → one; and K experts → one parameter set.

A combine rule is a function of predictions [K, B, ...], best expert first, to [B, ...].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax import devices as dv
from thicket_jax.blocks import ExpertMap, expert_map
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import Population, check_experts
from thicket_jax.perturbation import leaf_noise, leaf_scales, plan, sum_dtype

TIE = 1e-6  # votes whose weights are this close, relative to the larger, are tied


class Combine(Protocol):
    """Joins the predictions of K experts.

    Args:
      predictions: [K, B, ...], best expert first.

    Returns:
      [B, ...]; with K = 1 the answer of that expert.
    """

    def __call__(self, predictions: Any) -> Any:
        """Joins the predictions."""
        ...


def majority_vote(predictions: Any) -> jax.Array:
    """Returns the most common answer: int [B].

    Ties go to the better-ranked expert: of the tied answers, the one that the best expert gave.
    A negative label abstains; where everybody does, the answer is −1.

    Args:
      predictions: integer labels [K, B], or class scores [K, B, C], of which the argmax votes.

    Raises:
      ArgumentError: neither of these.
    """
    votes = _labels("majority_vote", predictions)
    return _winner(votes, jnp.ones(len(votes), jnp.float32))


def weighted_vote(predictions: Any, weights: Any) -> jax.Array:
    """Returns the answer of the largest total weight: int [B].

    Ties, to 6 digits, and abstention as in `majority_vote`.

    Args:
      predictions: as in `majority_vote`.
      weights: float [K], such as the experts' scores on the training items. Below 0 and NaN count
        as 0; if nothing is left, all are equal.

    Raises:
      ArgumentError: predictions of another kind, or not one weight an expert.

    Example:
      >>> weighted_vote(jnp.asarray([[3], [5], [5]]), [0.9, 0.3, 0.4]).tolist()
      [3]
    """
    votes = _labels("weighted_vote", predictions)
    given = jnp.asarray(weights, jnp.float32)
    if given.shape != votes.shape[:1]:
        raise ArgumentError(
            f"weights {list(given.shape)} do not fit predictions of {len(votes)} experts; give one "
            "each"
        )
    given = jnp.where(given > 0, given, 0)
    return _winner(votes, jnp.where(given.sum() > 0, given, jnp.ones_like(given)))


def _labels(rule: str, predictions: Any) -> jax.Array:
    votes = jnp.asarray(predictions)
    if votes.ndim == 3:
        votes = votes.argmax(-1)
    if votes.ndim != 2 or jnp.issubdtype(votes.dtype, jnp.floating):
        raise ArgumentError(
            f"{rule} got {votes.dtype}{list(votes.shape)}; it takes integer labels [K, B] "
            "or class scores [K, B, C]; use mean or median for numbers"
        )
    return votes


@jax.jit
def _winner(votes: jax.Array, weights: jax.Array) -> jax.Array:
    """The label of the largest weight; of tied ones, the one that the best expert gave."""

    def add(totals: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        vote, weight = row
        return totals + jnp.where(votes == vote[None], weight, 0), None

    totals, _ = jax.lax.scan(add, jnp.zeros(votes.shape, jnp.float32), (votes, weights))
    signed = jnp.issubdtype(votes.dtype, jnp.signedinteger)
    if signed:
        totals = jnp.where(votes < 0, -1, totals)
    # Equal totals of weights may differ by rounding; counts are whole and exact.
    best = (totals >= totals.max(0, keepdims=True) * (1 - TIE)).argmax(0)
    found = jnp.take_along_axis(votes, best[None], 0)[0]
    return jnp.maximum(found, -1) if signed else found


def mean(predictions: Any) -> jax.Array:
    """Returns the mean of predictions [K, B, ...] over experts, float32 [B, ...]."""
    return jnp.mean(jnp.asarray(predictions, jnp.float32), 0)


def median(predictions: Any) -> jax.Array:
    """Returns the median of predictions [K, B, ...] over experts, float32 [B, ...].

    Of an even K it is the mean of the middle two.
    """
    return jnp.median(jnp.asarray(predictions, jnp.float32), 0)


def mean_probs(predictions: Any) -> jax.Array:
    """Returns the mean of the experts' class probabilities, float32 [B, C].

    Args:
      predictions: logits [K, B, C]; each expert's softmax is taken, then the mean.
    """
    logits = jnp.asarray(predictions)
    if logits.ndim < 3 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ArgumentError(
            f"mean_probs got {logits.dtype}{list(logits.shape)}; it takes logits [K, B, C]; "
            "use majority_vote for labels"
        )
    return jnp.mean(jax.nn.softmax(logits.astype(jnp.float32), -1), 0)


COMBINES: dict[str, Combine] = {
    "majority_vote": majority_vote,
    "mean": mean,
    "median": median,
    "mean_probs": mean_probs,
}
WEIGHTED: dict[str, Callable[[Any, Any], Any]] = {"weighted_vote": weighted_vote}
"""Rules that take each expert's score on the training items as well; see `with_weights`."""
RULES: dict[str, Callable[..., Any]] = {**COMBINES, **WEIGHTED}


def combine_rule(name: str) -> Callable[..., Any]:
    """Returns the combine rule called `name`; an unknown name is an `ArgumentError`."""
    if name not in RULES:
        raise ArgumentError(f"combine={name!r} is unknown; choose one of: {', '.join(RULES)}")
    return RULES[name]


def with_weights(rule: Callable[..., Any], weights: Any) -> Combine:
    """Returns a rule of predictions alone: a weighted rule with its weights, others as they are.

    Args:
      rule: a combine rule, or one of `WEIGHTED`.
      weights: float [K], the scores of the experts whose predictions it will get.
    """
    if rule in WEIGHTED.values():
        return functools.partial(rule, weights=weights)
    return rule


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
      >>> predict = ensemble(lambda p, x: x @ p["w"], {"w": jnp.ones(2)}, experts, combine=mean)
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


def merge(params: Any, experts: Population, weights: Sequence[float] | None = None) -> Any:
    """Returns one parameter set, θ + Σ_k w_k·σ_k·ε_k, with signs and scales as the law says.

    Streamed: one leaf and one expert's noise at a time, summed in float32 and rounded once to the
    leaf's dtype. Memory: the result, and three float32 copies of the largest leaf.

    Args:
      params: θ; never modified.
      experts: K experts.
      weights: K numbers; default 1/K each.

    Raises:
      ArgumentError: weights that are not K finite numbers.
    """
    check_experts("experts", experts)
    if jnp.ndim(experts.ids) > 1:
        raise ArgumentError("experts are points of a plane, sums themselves; merge its basis")
    K = len(experts)
    try:
        values = np.full(K, 1 / K) if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (K,) or not np.isfinite(values).all():
        raise ArgumentError(f"weights must be {K} finite numbers, one per expert")
    law = plan(params, experts.noise)
    scales = leaf_scales(params, experts.noise)
    leaves, structure = jax.tree.flatten(params)
    merged = [
        _merge_leaf(leaf, experts, jnp.asarray(values, jnp.float32), scale, path=path)
        if use
        else leaf
        for leaf, path, use, scale in zip(leaves, law.paths, law.chosen, scales, strict=True)
    ]
    return jax.tree.unflatten(structure, merged)


def _merge_leaf_traced(
    leaf: jax.Array, experts: Population, weights: jax.Array, scale: jax.Array, path: str
) -> jax.Array:
    wide = sum_dtype(leaf.dtype)

    def add(total: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        weight, ids, sigmas, signs = row
        expert = Population(experts.key, ids, sigmas, signs, experts.noise)
        factor = weight * expert.signs * expert.sigmas * scale
        return total + factor * leaf_noise(expert, path, leaf.shape), None

    rows = (weights, experts.ids, experts.sigmas, experts.signs)
    total, _ = jax.lax.scan(add, jnp.zeros(leaf.shape, jnp.float32), rows)
    return (leaf.astype(wide) + total.astype(wide)).astype(leaf.dtype)


_merge_leaf = jax.jit(_merge_leaf_traced, static_argnames="path")
