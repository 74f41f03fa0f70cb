"""What several files of this folder share: experts, and what full scoring says of them."""

import pytest
from classifier import KEY, OPTIONS, N, batch, likelihood, params

import thicket_jax as tj


@pytest.fixture(scope="session")
def population():
    return tj.population(KEY, N, 0.3)


@pytest.fixture(scope="session")
def full(population):
    return tj.score(likelihood, params(), population, batch(), **OPTIONS)
