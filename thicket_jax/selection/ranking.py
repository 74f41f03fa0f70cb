"""Which experts to keep: the top K by score."""

import jax
import numpy as np

from thicket_jax.errors import ArgumentError, ScoreError, check_count
from thicket_jax.experts.population import Population
from thicket_jax.scoring.scores import Scores


def ranking(scores: Scores, population: Population | None = None) -> np.ndarray:
    """Returns the experts' positions, best first: int [N].

    Order: not failed before failed, then more items seen (who was dropped earlier ranks lower),
    then higher value, then lower id, then the +1 of an antithetic pair, then lower position.
    Without a population, ids are taken to be in order.
    """
    values = np.where(scores.failed, -np.inf, scores.values)
    positions = np.arange(len(values))
    unseen = np.zeros(len(values), int) if scores.seen is None else -scores.seen.astype(int)
    if population is None:
        return np.lexsort((positions, -values, unseen, scores.failed))
    ids, signs = np.asarray(population.ids), np.asarray(population.signs)
    return np.lexsort((positions, -signs, ids, -values, unseen, scores.failed))


def top_k(population: Population, scores: Scores, k: int) -> Population:
    """Returns the best `k` experts, best first (Neural Thickets, RandOpt, the selection step).

    Args:
      population: N experts.
      scores: their scores.
      k: how many to keep, at most the number of experts that did not fail.

    Returns:
      A `Population` of length k; ties go to the lower expert id.

    Raises:
      ArgumentError: k is larger than N, or than the number of experts that did not fail.
      ScoreError: every expert failed.
    """
    for name, value, kind in (("population", population, Population), ("scores", scores, Scores)):
        if not isinstance(value, kind):
            raise ArgumentError(
                f"{name} must be {kind.__name__}, got {type(value).__name__}; call "
                "tj.top_k(population, tj.score(...), k), with the scores and not their values"
            )
    columns = (population.ids, population.signs, scores.values, scores.failed, scores.seen)
    if any(isinstance(column, jax.core.Tracer) for column in columns):
        raise ArgumentError(
            "scores or population are traced: top_k is called inside jit, grad or vmap, and ranks "
            "on the host; call it outside"
        )
    k = check_count("k", k)
    if len(scores) != len(population):
        raise ArgumentError(
            f"scores of {len(scores)} experts do not belong to a population of {len(population)}"
        )
    if k > len(population):
        raise ArgumentError(
            f"k={k} is larger than the population of {len(population)}; lower k or raise num"
        )
    alive = int((~scores.failed).sum())
    if alive == 0:
        raise ScoreError(
            f"all {len(population)} experts failed: every score is NaN or infinite; check the "
            "score of the unperturbed parameters, then lower sigma"
        )
    if k > alive:
        raise ArgumentError(
            f"k={k} is larger than the {alive} experts that did not fail "
            f"({len(population) - alive} of {len(population)} have a NaN or infinite score); "
            "lower k or sigma"
        )
    return population[ranking(scores, population)[:k]]
