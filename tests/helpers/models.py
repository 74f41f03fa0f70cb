"""Small parameter trees and score functions that several test files share."""

import jax
import jax.numpy as jnp
import numpy as np


def params():
    """Two leaves of equal shape, a half-precision leaf and leaves that are never moved."""
    rng = np.random.default_rng(0)
    return {
        "first": {"kernel": jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)},
        "second": {
            "kernel": jnp.asarray(rng.normal(size=(4, 4)), jnp.float32),
        },
        "half": jnp.asarray(rng.normal(size=(37,)), jnp.bfloat16),
        "steps": jnp.asarray(3, jnp.int32),
        "mask": jnp.asarray([True, False]),
    }


def flat(tree, batch=None):
    """A score function whose items are the parameters themselves, so that scores show bits."""
    del batch
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.concatenate([x.astype(jnp.float32).reshape(-1) for x in leaves])


def images():
    """A batch of 12 items of 4 features, with labels."""
    rng = np.random.default_rng(1)
    return {
        "image": jnp.asarray(rng.normal(size=(12, 4)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 4, 12), jnp.int32),
    }


def logits(tree, batch):
    """A two-layer classifier, [B, 4]."""
    hidden = jnp.tanh(batch["image"] @ tree["first"]["kernel"])
    return hidden @ tree["second"]["kernel"]


def log_likelihood(tree, batch):
    """Per-item scores [B]: the log-probability of the label."""
    log_probs = jax.nn.log_softmax(logits(tree, batch))
    return jnp.take_along_axis(log_probs, batch["label"][:, None], 1)[:, 0]


def correct(tree, batch):
    """Per-item scores [B]: 1 where the label is predicted."""
    return (logits(tree, batch).argmax(-1) == batch["label"]).astype(jnp.float32)
