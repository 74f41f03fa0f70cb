"""Experts as points, one coordinate a task: principal components and clusters.

Shapes: n experts, M tasks, P components, C clusters. Points are percentile ranks, as from
`discordance.percentile_matrix`.
"""

import dataclasses

import numpy as np

from thicket_jax.errors import ArgumentError


@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """Principal components of experts.

    Attributes:
      coordinates: float64 [n, P], each expert's place along each component, in standard
        deviations of a task's percentile ranks.
      directions: float64 [P, M], orthonormal; the largest entry of each is positive.
      shares: float64 [P], the share of the variance along each, descending. An even first share
        of 1/M says that tasks are unrelated; near 1, that one order rules all.
      constant: tasks on which all experts are alike; they have no variance, and entries of 0.
    """

    coordinates: np.ndarray
    directions: np.ndarray
    shares: np.ndarray
    constant: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of experts that are good at the same tasks.

    Attributes:
      labels: int64 [n]; cluster 0 is the largest.
      centres: float64 [C, M], mean percentile rank of each cluster on each task.
      sizes: int64 [C], descending.
      silhouette: −1..1, mean over experts of (b − a) / max(a, b), a the mean distance to the own
        cluster and b to the next one. Near 0 there are no groups, only a cut cloud.
    """

    labels: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    silhouette: float


def principal_components(percentiles: np.ndarray, count: int | None = None) -> Components:
    """Returns the principal components of experts over tasks.

    The columns are centred and divided by their standard deviation, so that a task with many ties
    weighs as much as another; then the singular value decomposition. The shares are the
    eigenvalues of the tasks' correlation matrix over their sum.

    Args:
      percentiles: float [n, M].
      count: P, at most min(n, M); default all.

    Raises:
      ArgumentError: not [n, M] of finite numbers, or a count that is not there.

    Source: Jolliffe, Principal Component Analysis, 2nd edition 2002, chapters 1 to 3.
    """
    points = _points(percentiles)
    most = min(points.shape)
    count = most if count is None else count
    if not 1 <= count <= most:
        raise ArgumentError(f"count={count} components of {most}; choose 1 to {most}")
    constant = (points == points[:1]).all(0)
    spread = np.where(constant, 1.0, points.std(0))
    scaled = np.where(constant, 0.0, (points - points.mean(0)) / spread)
    left, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    largest = np.abs(directions).argmax(1)
    signs = np.where(directions[np.arange(most), largest] < 0, -1.0, 1.0)
    total = (sizes**2).sum()
    shares = sizes**2 / total if total > 0 else np.zeros(most)
    return Components(
        coordinates=(left * sizes * signs)[:, :count],
        directions=(directions * signs[:, None])[:count],
        shares=shares[:count],
        constant=tuple(int(m) for m in np.flatnonzero(constant)),
    )


def clusters(percentiles: np.ndarray, count: int | None = None, seed: int = 0) -> Clusters:
    """Returns k-means clusters of experts; equal seeds give equal clusters.

    Args:
      percentiles: float [n, M].
      count: C, at least 2 and fewer than the number of different points; None takes the number
        from 2 to 8 with the highest silhouette.
      seed: a whole number.

    Memory: the silhouette needs distances between all experts, in pieces.

    Raises:
      ArgumentError: not [n, M] of finite numbers, or a count that these experts do not allow.

    Source: Lloyd, "Least squares quantization in PCM", 1982; Rousseeuw, "Silhouettes", 1987.
    """
    points = _points(percentiles)
    different = len(np.unique(points, axis=0))
    if different < 3:
        raise ArgumentError(
            f"clusters need at least 3 different experts, and these are {different}; "
            "score more experts, or more items"
        )
    if count is None:
        found = [_kmeans(points, C, seed) for C in range(2, min(8, different - 1) + 1)]
        return max(found, key=lambda one: one.silhouette)
    if not 2 <= count < different:
        raise ArgumentError(
            f"count={count} clusters of {different} different experts; choose 2 to {different - 1}"
        )
    return _kmeans(points, count, seed)


def _kmeans(points: np.ndarray, count: int, seed: int) -> Clusters:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    # On so few points the threads wait for each other: 30 times as long beside other work.
    with threadpool_limits(1):
        labels = KMeans(count, n_init=10, random_state=seed).fit(points).labels_
    sizes = np.bincount(labels, minlength=count)
    # Equal sizes keep the order of their first experts, not that of the random starts.
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(count)])
    order = np.lexsort((first, -sizes))
    place = np.argsort(order)[labels]
    return Clusters(
        labels=place.astype(np.int64),
        centres=np.stack([points[place == c].mean(0) for c in range(count)]),
        sizes=sizes[order],
        silhouette=float(silhouette_score(points, place)),
    )


def _points(percentiles: np.ndarray) -> np.ndarray:
    points = np.asarray(percentiles, np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ArgumentError(
            f"percentiles {list(points.shape)} must be finite numbers [n, M], as from "
            "discordance.percentile_matrix"
        )
    return points
