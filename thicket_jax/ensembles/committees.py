"""Who goes into an ensemble, from logged answers: forward, bagged, complementary selection.

An answer is a vector: a number, a curve, class probabilities, or a vote as 0 and 1 per class. The
squared error of the members' mean is then a quadratic form of the matrix G of error products,
so that a selection needs G and no answers. Use answers on train items; test items are for testing.

Shapes: M candidates, B items, C classes, K members. Positions are those of the candidates, best
first, so that ties go to the better one.
"""

import dataclasses
import math

import numpy as np

from thicket_jax.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Ambiguity:
    """The squared error of an ensemble's mean, in two parts: error = mean_error − diversity.

    Attributes:
      error: of the weighted mean of the members.
      mean_error: the members' own errors, weighted alike.
      diversity: how far the members are from their mean, Σ w_k·‖a_k − ā‖²; never negative.
    """

    error: float
    mean_error: float
    diversity: float


def error_products(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns G, float64 [M, M]: G_ij = mean over items and parts of (a_i − y)·(a_j − y).

    G_ii is the mean squared error of candidate i, and wᵀGw that of the mean with weights w that
    sum to 1. Memory: the errors once in float64, and M·M.

    Args:
      answers: float [M, B, ...].
      targets: float [B, ...].

    Raises:
      ArgumentError: shapes that do not fit, or an answer that is not finite.

    Example:
      >>> error_products(np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros(2)).tolist()
      [[0.5, 0.0], [0.0, 2.0]]
    """
    answers, targets = np.asarray(answers), np.asarray(targets)
    if answers.ndim < 2 or not answers.size or answers.shape[1:] != targets.shape:
        raise ArgumentError(
            f"answers {list(answers.shape)} and targets {list(targets.shape)} must be [M, B, ...] "
            "and [B, ...], none of them empty"
        )
    errors = (answers.astype(np.float64) - targets.astype(np.float64)).reshape(len(answers), -1)
    if not np.isfinite(errors).all():
        raise ArgumentError(
            "an answer or a target is not finite; leave failed experts out before a selection"
        )
    return errors @ errors.T / errors.shape[1]


def one_hot(votes: np.ndarray, classes: int) -> np.ndarray:
    """Returns votes, integer [...], as float32 [..., C]; a negative one abstains and is all 0."""
    return (np.asarray(votes)[..., None] == np.arange(classes)).astype(np.float32)


def greedy(products: np.ndarray, size: int, *, start: int = 1) -> np.ndarray:
    """Returns members chosen one by one, each the one that lowers the error of the mean most.

    With S the members so far, the next is argmin_j of (Σ_{i,k∈S} G_ik + 2 Σ_{i∈S} G_ij + G_jj):
    the same candidate may come again, which is how members get whole-number weights. The first
    K of the answer are what a smaller `size` gives, if it is not below `start`.

    Args:
      products: G of the train items, float [M, M].
      size: K, how many picks; fewer candidates may be behind them.
      start: so many of the best single candidates go in first (sorted initialisation).

    Returns:
      int [K], in the order of the picks.

    Raises:
      ArgumentError: a matrix that is not square and finite, or a count out of range.

    Source: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of
    models", ICML 2004, sections 2 to 2.2.

    Example:
      >>> errors = np.array([[0.3, 0.3], [-0.4, -0.4], [0.5, 0.0]])
      >>> greedy(errors @ errors.T / 2, 4).tolist()
      [0, 1, 0, 1]
    """
    G = _square(products)
    M = len(G)
    _check_size(size)
    if not 1 <= start <= M:
        raise ArgumentError(f"start={start} of {M} candidates; choose 1 to {M}")
    picks = list(np.argsort(np.diag(G), kind="stable")[: min(start, size)])
    with_members = G[picks].sum(0)
    while len(picks) < size:
        picks.append(int((2 * with_members + np.diag(G)).argmin()))
        with_members = with_members + G[picks[-1]]
    return np.array(picks, np.int64)


def bagged_greedy(
    products: np.ndarray,
    size: int,
    *,
    bags: int = 10,
    share: float = 0.5,
    start_share: float = 0.2,
    seed: int = 0,
) -> np.ndarray:
    """Returns the picks of several forward selections, each among a random part of the candidates.

    A candidate that is good by luck on the train items alone is in some bags only. The K picks
    are dealt out to the bags as evenly as can be; below `bags` picks there are K bags of one.

    Args:
      products: G of the train items, float [M, M].
      size: K, picks of all bags together.
      bags: how many.
      share: of the candidates that a bag has, drawn without replacement.
      start_share: of a bag's picks that are its best single candidates, at least one.
      seed: a whole number; equal seeds give equal bags.

    Returns:
      int [K], most picked first, ties to the better candidate; not nested in K.

    Raises:
      ArgumentError: as `greedy`, or a share outside (0, 1].

    Source: as `greedy`, section 2.3.
    """
    G = _square(products)
    M = len(G)
    _check_size(size)
    if bags < 1 or not 0 < share <= 1 or not 0 <= start_share <= 1:
        raise ArgumentError(
            f"bags={bags}, share={share} and start_share={start_share}: choose at least 1 bag and "
            "shares between 0 and 1"
        )
    rng, counts = np.random.default_rng(seed), np.zeros(M, np.int64)
    bags, each = min(bags, size), max(1, round(share * M))
    for bag in range(bags):
        part = np.sort(rng.permutation(M)[:each])
        wanted = size // bags + (bag < size % bags)
        start = min(each, max(1, round(start_share * wanted)))
        found = greedy(G[np.ix_(part, part)], wanted, start=start)
        counts += np.bincount(part[found], minlength=M)
    order = np.argsort(-counts, kind="stable")
    return np.repeat(order, counts[order])


def complementary(products: np.ndarray, size: int, weight: float) -> np.ndarray:
    """Returns members chosen one by one for being good and for erring unlike those before.

    The next is argmin_j of G_jj / m + weight · mean_{i∈S} r_ij, where m is the median of the
    candidates' own errors and r_ij = G_ij / √(G_ii·G_jj), from −1 to 1, says how alike the errors
    of i and j are. Nobody comes twice. Weight 0 is the plain top K.

    Args:
      products: G of the train items, float [M, M].
      size: K, at most M.
      weight: what unlikeness is worth, 0 or more, in median errors.

    Returns:
      int [K], in the order of the picks; the first K of a larger selection.

    Raises:
      ArgumentError: as `greedy`; more members than candidates; a weight below 0.
    """
    G = _square(products)
    _check_size(size)
    if size > len(G):
        raise ArgumentError(f"size={size} of {len(G)} candidates; nobody is chosen twice")
    if not (weight >= 0 and math.isfinite(weight)):
        raise ArgumentError(f"weight={weight} must be 0 or more, and finite")
    own, alike = np.diag(G) / _scale(G), _alike(G)
    left = np.ones(len(G), bool)
    picks: list[int] = []
    summed = np.zeros(len(G))
    while len(picks) < size:
        cost = own + weight * summed / max(1, len(picks))
        picks.append(int(np.where(left, cost, np.inf).argmin()))
        left[picks[-1]] = False
        summed = summed + alike[picks[-1]]
    return np.array(picks, np.int64)


def greedy_votes(votes: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    """Returns members chosen one by one, each the one that makes the vote right most often.

    As `greedy`, for the accuracy of a majority vote in place of a squared error. A tie between
    a right and a wrong class counts one half; equally good candidates go to the better one.

    Args:
      votes: integer [M, B], best candidate first; negative ones abstain.
      right: bool [B, C], whether class c is a right answer to item b.
      size: K.

    Returns:
      int [K], in the order of the picks, with repetition.

    Raises:
      ArgumentError: shapes that do not fit.
    """
    votes, right = np.asarray(votes), np.asarray(right, bool)
    _check_size(size)
    fits = votes.ndim == right.ndim == 2 and votes.shape[1:] == right.shape[:1] and votes.size
    if not fits or votes.max() >= right.shape[1]:
        raise ArgumentError(
            f"votes {list(votes.shape)} and right {list(right.shape)} must be [M, B] and [B, C], "
            "every vote below C"
        )
    items, cast = np.arange(votes.shape[1]), np.maximum(votes, 0)
    abstains, hits = votes < 0, right[items, cast]
    counts = np.zeros(right.shape)
    picks: list[int] = []
    while len(picks) < size:
        good = np.where(right, counts, 0).max(1)
        bad = np.where(right, 0, counts).max(1)
        more = counts[items, cast] + 1
        best_good = np.where(hits & ~abstains, np.maximum(good, more), good)
        best_bad = np.where(~hits & ~abstains, np.maximum(bad, more), bad)
        won = np.where(best_good > best_bad, 1.0, np.where(best_good < best_bad, 0.0, 0.5))
        won = np.where(best_good + best_bad == 0, 0.0, won)
        picks.append(int(won.mean(1).argmax()))
        own = ~abstains[picks[-1]]
        counts[items[own], cast[picks[-1]][own]] += 1
    return np.array(picks, np.int64)


def error_weights(products: np.ndarray, members: np.ndarray, temperature: float) -> np.ndarray:
    """Returns weights that fall with a member's own error: w_k ∝ exp(−G_kk / (m·temperature)).

    m is the median of the members' errors, so that the temperature has no unit.

    Args:
      products: G of the train items, float [M, M].
      members: int [K], positions.
      temperature: above 0; infinite gives all the same weight.

    Returns:
      float [K], which sum to 1.
    """
    if not temperature > 0:
        raise ArgumentError(f"temperature={temperature} must be above 0")
    own = np.diag(_square(products))[np.asarray(members)]
    scale = float(np.median(own)) or 1.0
    raised = np.exp(-(own - own.min()) / (scale * temperature))
    return raised / raised.sum()


def ambiguity(
    products: np.ndarray, members: np.ndarray, weights: np.ndarray | None = None
) -> Ambiguity:
    """Returns the error of the members' mean as their own errors less their diversity.

    Args:
      products: G of any items, float [M, M].
      members: int [K], positions, with repetition where somebody counts more.
      weights: float [K] that sum to 1; default all the same.

    Source: Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning",
    NIPS 1994.

    Example:
      >>> ambiguity(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0, 1]))
      Ambiguity(error=0.0, mean_error=1.0, diversity=1.0)
    """
    G, members = _square(products), np.asarray(members)
    w = np.full(len(members), 1 / len(members)) if weights is None else np.asarray(weights)
    mean_error = float(w @ np.diag(G)[members])
    error = float(w @ G[np.ix_(members, members)] @ w)
    return Ambiguity(error, mean_error, mean_error - error)


def error_correlation(products: np.ndarray, members: np.ndarray) -> float:
    """Returns the mean of r_ij = G_ij / √(G_ii·G_jj) over pairs of different members.

    1: they all err alike; 0: as if independent. NaN for fewer than two. Those who never err
    have r = 0 with everybody.
    """
    distinct = np.unique(np.asarray(members))
    if len(distinct) < 2:
        return math.nan
    alike = _alike(_square(products)[np.ix_(distinct, distinct)])
    return float(alike[np.triu_indices(len(distinct), 1)].mean())


def _square(products: np.ndarray) -> np.ndarray:
    G = np.asarray(products, np.float64)
    if G.ndim != 2 or G.shape[0] != G.shape[1] or not G.size or not np.isfinite(G).all():
        raise ArgumentError(
            f"products {list(G.shape)} must be [M, M] and finite, as error_products returns"
        )
    return G


def _check_size(size: int) -> None:
    if size < 1:
        raise ArgumentError(f"size={size} must be at least 1")


def _scale(G: np.ndarray) -> float:
    return float(np.median(np.diag(G))) or 1.0


def _alike(G: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.diag(G))
    norms = np.where(norms > 0, norms, np.inf)
    return G / norms[:, None] / norms[None]
