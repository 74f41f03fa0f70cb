"""A function that is elementwise, and experts of it whose answers are known to the bit."""

import jax
import jax.numpy as jnp
import numpy as np

import thicket_jax as tj


def apply(params, batch):
    """Elementwise, so that no reduction order can change a bit between block sizes."""
    return batch[:, None] * params["w"][None]


PARAMS = {"w": jnp.asarray([1.0, -2.0, 0.5])}


def experts():
    """Five of twenty, in no order."""
    drawn = tj.population(jax.random.key(3), 20, (0.1, 0.3), noise=tj.rademacher())
    return drawn[[4, 19, 0, 7, 11]]


def expected_rows(experts, batch):
    moved = np.stack([np.asarray(tj.perturb(PARAMS, expert)["w"]) for expert in experts])
    return np.asarray(batch)[None, :, None] * moved[:, None, :]
