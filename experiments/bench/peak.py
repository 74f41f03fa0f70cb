"""The machine's own matrix-product peak, measured: what a share of it is a share of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import timing
from thicket_jax.mapping import devices

SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (8192, 128, 128), (65536, 128, 128))
"""[m, k] @ [k, n]: squares, and the tall products that the 1-D task is made of."""


def peak(dtype: str, repeats: int, shapes: Any = SHAPES) -> dict[str, Any]:
    """Returns the best rate over shapes, on one device and on all at once.

    Each of several devices multiplies matrices of its own; the sum of their work counts.

    Returns:
      `{"flops": best of all, "by": {"1 device, 1024x1024x1024": operations per second, ...}}`.
    """
    rates: dict[str, float] = {}
    for m, k, n in shapes:
        for count in sorted({1, jax.local_device_count()}):
            run = _product(m, k, n, dtype, count)
            best = min(timing.seconds(run) for _ in range(repeats + 1))
            name = f"{count} device(s), {m}x{k}x{n}"
            rates[name] = count * 2 * m * k * n / best
    return {"flops": max(rates.values()), "by": rates}


def _product(m: int, k: int, n: int, dtype: str, count: int) -> Callable[[], jax.Array]:
    local = jax.local_devices()[:count]
    a = jax.random.normal(jax.random.key(0), (m, k)).astype(dtype)
    b = jax.random.normal(jax.random.key(1), (k, n)).astype(dtype)
    if count == 1:
        multiply = jax.jit(jnp.matmul)
        return lambda: multiply(a, b)
    both = devices.make_mapper(local).split((jnp.stack([a] * count), jnp.stack([b] * count)))
    mapped = jax.pmap(jnp.matmul, devices=local)
    return lambda: mapped(*both)
