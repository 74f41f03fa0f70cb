"""Components and clusters of experts: by their definitions."""

import math

import numpy as np
import pytest
from tied_scores import tied

from thicket_jax.analysis import discordance, specialists
from thicket_jax.errors import ArgumentError


def test_components_by_hand():
    # Two tasks that agree: one direction, (1, 1)/√2, holds all.
    up = np.array([0.25, 0.5, 0.75])
    found = specialists.principal_components(np.stack([up, up], 1))
    assert found.shares == pytest.approx([1, 0])
    assert found.directions[0] == pytest.approx([math.sqrt(0.5)] * 2)
    assert found.coordinates[:, 0] == pytest.approx([-math.sqrt(3), 0, math.sqrt(3)])


def test_components_are_those_of_the_correlation_matrix():
    percentiles, _ = discordance.percentile_matrix(tied(60, 4, 11))
    found = specialists.principal_components(percentiles)
    sizes = np.linalg.eigvalsh(np.corrcoef(percentiles.T))[::-1]
    assert found.shares == pytest.approx(sizes / 4)
    scaled = (percentiles - 0.5) / percentiles.std(0)
    assert found.coordinates @ found.directions == pytest.approx(scaled)
    assert found.directions @ found.directions.T == pytest.approx(np.eye(4), abs=1e-9)
    assert (np.abs(found.directions).max(1) == found.directions.max(1)).all()
    few = specialists.principal_components(percentiles, 2)
    assert few.coordinates.tolist() == found.coordinates[:, :2].tolist()


def test_components_of_constant_tasks_and_of_one_expert():
    percentiles = np.stack([np.array([0.1, 0.5, 0.9]), np.full(3, 0.5)], 1)
    found = specialists.principal_components(percentiles)
    assert found.constant == (1,)
    assert found.directions[0] == pytest.approx([1, 0])
    one = specialists.principal_components(np.array([[0.5, 0.5]]))
    assert one.shares.tolist() == [0]
    assert one.coordinates.tolist() == [[0]]


def test_clusters_find_the_groups_that_are_there():
    rng = np.random.default_rng(12)
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    centres = np.array([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    points = centres[truth] + 0.03 * rng.normal(size=(60, 3))
    found = specialists.clusters(points)
    assert (found.labels == truth).all()  # the largest first
    assert found.sizes.tolist() == [30, 20, 10]
    assert found.centres == pytest.approx(centres, abs=0.03)
    assert found.silhouette > 0.8
    again = specialists.clusters(points, 3)
    assert (again.labels == found.labels).all()
    # The silhouette by its definition.
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    values = []
    for i in range(60):
        means = [distances[i, truth == c].sum() / (truth == c).sum() for c in range(3)]
        a = means[truth[i]] * (truth == truth[i]).sum() / ((truth == truth[i]).sum() - 1)
        b = min(m for c, m in enumerate(means) if c != truth[i])
        values.append((b - a) / max(a, b))
    assert found.silhouette == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: specialists.principal_components(np.ones((3, 2)), 3), "count=3"),
        (lambda: specialists.principal_components(np.full((3, 2), np.nan)), "finite"),
        (lambda: specialists.clusters(np.ones((9, 2))), "at least 3 different"),
        (lambda: specialists.clusters(np.eye(4), 4), "count=4"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
