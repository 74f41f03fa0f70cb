"""Predictions of K experts → one; and K experts → one parameter set.

A combine rule is a function of predictions [K, B, ...], best expert first, to [B, ...]. An expert
whose prediction of an item has a NaN in it has failed there: it has no vote and no part in a mean.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, check_choice, shown

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
      predictions: integer labels [K, B], or class scores [K, B, C], of which the argmax votes; a
        row of scores with a NaN abstains.

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
    try:
        given = jnp.asarray(weights, jnp.float32)
    except (TypeError, ValueError):
        raise ArgumentError(f"weights={shown(weights)} must be one number an expert") from None
    if given.shape != votes.shape[:1]:
        raise ArgumentError(
            f"weights {list(given.shape)} do not fit predictions of {len(votes)} experts; give one "
            "each"
        )
    given = jnp.where(given > 0, given, 0)
    return _winner(votes, jnp.where(given.sum() > 0, given, jnp.ones_like(given)))


def _given(rule: str, predictions: Any) -> jax.Array:
    """Predictions as an array, if they are real numbers [K, B, ...] of at least one expert."""
    try:
        found = jnp.asarray(predictions)
    except (TypeError, ValueError):  # text, objects, rows of several lengths
        what = f"a {type(predictions).__name__}"
    else:
        what = f"{found.dtype}{list(found.shape)}"
        real = any(jnp.issubdtype(found.dtype, x) for x in (np.floating, np.integer, np.bool_))
        if real and found.ndim > 1 and len(found):
            return found
    raise ArgumentError(
        f"{rule} got {what}; it takes predictions [K, B, ...], real numbers, of at least one "
        "expert; use majority_vote for labels, mean for numbers"
    )


def _labels(rule: str, predictions: Any) -> jax.Array:
    votes = _given(rule, predictions)
    if votes.ndim == 3 and votes.size:
        votes = jnp.where(_there(votes), votes.argmax(-1), -1)
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


def _there(predictions: jax.Array) -> jax.Array:
    """Which experts answered which items, without a NaN: bool [K, B]."""
    return ~jnp.isnan(predictions).any(tuple(range(2, predictions.ndim)))


def _over_who_is_there(
    predictions: jax.Array, join: Callable[..., jax.Array], join_some: Callable[..., jax.Array]
) -> jax.Array:
    """Joins [K, B, ...] over experts: all of them, or those of an item that have no NaN in it.

    Where all are there, the bits are those of `join`; where none is, NaN.
    """
    there = _there(predictions)
    wide = there.reshape(there.shape + (1,) * (predictions.ndim - 2))
    some = join_some(jnp.where(wide, predictions, jnp.nan), 0)
    return jnp.where(wide.all(0), join(predictions, 0), some)


def mean(predictions: Any) -> jax.Array:
    """Returns the mean of predictions [K, B, ...] over experts, float32 [B, ...].

    Of each item over those without a NaN; NaN where there are none.
    """
    given = _given("mean", predictions).astype(jnp.float32)
    return _over_who_is_there(given, jnp.mean, jnp.nanmean)


def median(predictions: Any) -> jax.Array:
    """Returns the median of predictions [K, B, ...] over experts, float32 [B, ...].

    Of an even K it is the mean of the middle two. Of each item over those without a NaN.
    """
    given = _given("median", predictions).astype(jnp.float32)
    return _over_who_is_there(given, jnp.median, jnp.nanmedian)


def mean_probs(predictions: Any) -> jax.Array:
    """Returns the mean of the experts' class probabilities, float32 [B, C].

    Args:
      predictions: logits [K, B, C]; each expert's softmax is taken, then the mean, over those
        without a NaN.
    """
    logits = _given("mean_probs", predictions)
    if logits.ndim < 3 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ArgumentError(
            f"mean_probs got {logits.dtype}{list(logits.shape)}; it takes logits [K, B, C]; "
            "use majority_vote for labels"
        )
    return mean(jax.nn.softmax(logits.astype(jnp.float32), -1))


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
    check_choice("combine", name, RULES)
    return RULES[name]


def combine_rules(*names: str) -> dict[str, Callable[..., Any]]:
    """Returns the combine rules of these names, by name."""
    return {name: combine_rule(name) for name in names}


def with_weights(rule: Callable[..., Any], weights: Any) -> Combine:
    """Returns a rule of predictions alone: a weighted rule with its weights, others as they are.

    Args:
      rule: a combine rule, or one of `WEIGHTED`.
      weights: float [K], the scores of the experts whose predictions it will get.
    """
    return functools.partial(rule, weights=weights) if is_weighted(rule) else rule


def is_weighted(rule: Any) -> bool:
    """Whether a rule takes weights; told by what it is, as a user's own may compare as it likes."""
    return any(rule is known for known in WEIGHTED.values())
