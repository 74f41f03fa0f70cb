"""A one-leaf classifier of 48 items and its experts, for the tests of selection."""

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(3)
N, B, K = 64, 48, 4
OPTIONS = {"block_size": 2}


def batch():
    """48 items of 4 features, with labels, and a leaf that has no items."""
    rng = np.random.default_rng(2)
    return {
        "image": jnp.asarray(rng.normal(size=(B, 4)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 4, B), jnp.int32),
        "shift": jnp.float32(1),
    }


def params():
    """One leaf, so that programs compile fast."""
    return {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)}


def logits(params, batch):
    return batch["image"] @ params["w"]


def likelihood(tree, batch):
    """The log-probability of the label [B]; NaN for about one expert in ten, which fails."""
    log_probs = jax.nn.log_softmax(logits(tree, batch) * jnp.ravel(batch["shift"])[0])
    found = jnp.take_along_axis(log_probs, batch["label"][:, None], 1)[:, 0]
    return jnp.where(tree["w"][0, 0] > params()["w"][0, 0] + 0.4, jnp.nan, found)


def labels(params, batch):
    """Predicted labels, graded on the host."""
    return logits(params, batch).argmax(-1).astype(jnp.int32)


def correct(params, batch):
    """1 where the label is predicted [B]."""
    return (labels(params, batch) == batch["label"]).astype(jnp.float32)


def ids(experts):
    return np.asarray(experts.ids).tolist()
