"""The noise of one leaf by its path, as a reference for what goes by plans."""

import jax
import numpy as np

from thicket_jax.experts.leaves import path_hash
from thicket_jax.experts.perturbation import row_noise

# Compiled: drawn step by step, every operation on every shape would be a program of its own.
_draw = jax.jit(row_noise, static_argnames=("shape", "letters"))


def leaf_noise(expert, path, shape):
    """ε of one expert for the leaf of this path, float32 of `shape`."""
    noise = expert.noise
    leaf_hash = np.uint32(path_hash(noise.epsilon.hashed(path, shape)))
    return _draw(expert, leaf_hash, shape, noise.letters(path, len(shape)))
