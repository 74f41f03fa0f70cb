"""A linear function of five items, and experts of it."""

import jax
import jax.numpy as jnp
import numpy as np

import thicket_jax as tj
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.functions import mapped
from thicket_jax.mapping.placement import place

PARAMS = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3,)), jnp.float32)}
BATCH = {"x": jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)}


def per_item(params, batch):
    return batch["x"] @ params["w"]


def scalar(params, batch):
    return per_item(params, batch).mean()


def population(num=13, sigma=0.1):
    return tj.population(jax.random.key(0), num, sigma)


def mapped_linear(**options):
    """`per_item` on its batch, ready on the devices; `options` are those of `place`."""
    return expert_map(mapped(per_item), PARAMS, tj.gaussian(), BATCH, place(PARAMS, **options))
