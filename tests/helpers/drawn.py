"""The noise of one leaf by its path, as a reference for what goes by plans."""

import numpy as np

from thicket_jax.experts.leaves import path_hash
from thicket_jax.experts.perturbation import row_noise


def leaf_noise(expert, path, shape):
    """ε of one expert for the leaf of this path, float32 of `shape`."""
    noise = expert.noise
    leaf_hash = np.uint32(path_hash(noise.epsilon.hashed(path, shape)))
    return row_noise(expert, leaf_hash, shape, noise.letters(path, len(shape)))
