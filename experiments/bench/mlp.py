"""The plain MLP that several benchmarks score: weights alone, and a score that knows no noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTH, LAYERS = 512, 7

Params = dict[str, jax.Array]


def parameters(width: int = WIDTH, layers: int = LAYERS) -> Params:
    """Returns `layers` float32 matrices [width, width] that keep an activation's size."""
    draw = np.random.default_rng(0)
    scale = np.float32(np.sqrt(2 / width))
    return {
        f"w{i}": jnp.asarray(draw.standard_normal((width, width), np.float32) * scale)
        for i in range(layers)
    }


def inputs(*shape: int) -> np.ndarray:
    """Returns standard normal inputs, float32."""
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def forward(params: Params, x: jax.Array) -> jax.Array:
    """Returns [..., width] after every matrix, with ReLU between them."""
    weights = list(params.values())
    for weight in weights[:-1]:
        x = jax.nn.relu(x @ weight)
    return x @ weights[-1]


def score_fn(params: Params, x: jax.Array) -> jax.Array:
    """Returns minus the mean square of every row's output: [...]."""
    return -jnp.mean(forward(params, x) ** 2, -1)


def new_score_fn() -> Callable[..., Any]:
    """Returns `score_fn` as a function object of its own, of which nothing is compiled yet."""

    def fn(params: Params, x: jax.Array) -> jax.Array:
        return score_fn(params, x)

    return fn


def operations(rows: int, width: int = WIDTH, layers: int = LAYERS) -> int:
    """Multiplications and additions of the matrix products on so many rows."""
    return 2 * rows * layers * width * width
