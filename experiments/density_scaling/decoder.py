"""The family of decoders: five widths of one model, and what is asked of it.

The model is the package's own language model (`thicket_jax.text.model`), of the Llama family.
Shapes: B lines, W tokens a line, Q answer tokens of all lines, V tokens of the alphabet.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.density_scaling.dataset import VOCABULARY, Lines
from experiments.density_scaling.puzzles import WIDTH
from thicket_jax.errors import ArgumentError
from thicket_jax.text.config import Config
from thicket_jax.text.model import abstract, forward, random_params
from thicket_jax.text.rope import Rope

LAYERS, HEAD = 3, 16
WIDTHS = (16, 32, 64, 128, 256)


def check(width: int) -> None:
    """Raises `ArgumentError` unless a decoder can be so wide."""
    if width < 2 or width % 2 or (width > HEAD and width % HEAD):
        raise ArgumentError(f"width {width} must be even, and above {HEAD} a multiple of {HEAD}")


@functools.cache
def config(width: int) -> Config:
    """Returns the decoder's shape: 3 layers, heads of 16, a gated MLP three times as wide."""
    return Config(
        family="llama",
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_layers=LAYERS,
        num_heads=max(1, width // HEAD),
        num_kv_heads=max(1, width // HEAD),
        head_dim=min(HEAD, width),
        max_positions=WIDTH,
        norm_eps=1e-5,
        ropes=(Rope("default", 10000.0),) * LAYERS,
        windows=(None,) * LAYERS,
        tied=False,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        qk_norm="none",
        norm_position="pre",
        activation="silu",
        attention_scale=min(HEAD, width) ** -0.5,
        dtype="float32",
        bos_id=None,
        eos_ids=(0,),
        pad_id=0,
    )


def initialise(width: int, seed: int) -> Any:
    """Returns random parameters: matrices of variance 1 / inputs, norms 1."""
    return random_params(config(width), nnx.Rngs(seed))


def count(width: int) -> int:
    """Returns the number of parameters."""
    shapes = abstract(config(width), jnp.float32)
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


def _all_logits(width: int, params: Any, tokens: jax.Array) -> jax.Array:
    """Logits [B, W - 1, V] of the token after each, every line seen from its own beginning."""
    rows, steps = tokens.shape[0], tokens.shape[1] - 1
    positions = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[None], (rows, steps))
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((steps, steps), bool))[None], (rows, steps, steps))
    return forward(config(width), params, tokens[:, :-1], positions, None, causal)[0]


def losses(width: int, params: Any, tokens: jax.Array, answer: jax.Array) -> jax.Array:
    """Returns the cross-entropy of every answer token, nats [B, W - 1]; 0 elsewhere."""
    logits = _all_logits(width, params, tokens)
    wanted = jax.nn.log_softmax(logits, -1)
    picked = jnp.take_along_axis(wanted, tokens[:, 1:, None], -1)[..., 0]
    return jnp.where(answer[:, 1:], -picked, 0)


@functools.cache
def answers(width: int) -> Callable[[Any, Any], jax.Array]:
    """Returns `(params, batch) → [B, 2]`: whether an answer is right, and its log-likelihood.

    Right is what greedy decoding would write in full: that is the answer exactly when each of its
    tokens is the likeliest after the ones before it, so one pass over the right line tells. The
    log-likelihood is the mean over the answer's tokens, nats.
    """

    def score(params: Any, batch: Lines) -> jax.Array:
        logits = _all_logits(width, params, batch["tokens"])
        after, asked = batch["tokens"][:, 1:], batch["answer"][:, 1:]
        right = jnp.where(asked, logits.argmax(-1) == after, True).all(-1)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), after[..., None], -1)[..., 0]
        likelihood = jnp.where(asked, picked, 0).sum(-1) / asked.sum(-1).astype(jnp.float32)
        return jnp.stack([right.astype(jnp.float32), likelihood], -1)

    return score


@functools.cache
def answer_logits(width: int) -> Callable[[Any, Any], jax.Array]:
    """Returns `(params, batch) → [Q, V]`: the logits of all answer tokens, `places` [Q] of them."""

    def logits(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        every = _all_logits(width, params, batch["tokens"])
        return every.reshape(-1, every.shape[-1])[batch["places"]]

    return logits


def with_places(lines: Lines) -> dict[str, np.ndarray]:
    """Returns the lines with the places of their answer tokens, for `answer_logits`."""
    return {"tokens": lines["tokens"], "places": np.flatnonzero(lines["answer"][:, 1:])}
