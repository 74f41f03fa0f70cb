"""Scores with ties, for tests of ranks."""

import numpy as np


def tied(n, M, seed, levels=5):
    return np.random.default_rng(seed).integers(0, levels, (n, M)).astype(float)
