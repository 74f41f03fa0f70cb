"""The least that low-rank noise of rank 1 can cost beside the passes that it is added to.

Operations and bytes are counted; the rates that they are divided by are measured.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import peak, timing
from thicket_jax.experts.laws import DENSE
from thicket_jax.mapping import devices

_FLOAT = 4  # bytes
_REPEATS = 32


def rates(mapper: devices.Mapper, quick: bool) -> dict[str, float]:
    """Measures the best rates of all devices together.

    Returns:
      `gaussian` and `rademacher`, values drawn a second; `flops`, operations of matrix products;
      `bytes`, read a second by passes over an array that a core's cache may hold.
    """
    repeats = 2 if quick else 10
    values = 2**10 if quick else 2**15
    rows = (16,) if quick else (64, 256, 1024)
    width = 16 if quick else 512
    shapes = ((64, 64, 64),) if quick else peak.SHAPES
    found = {law: _drawing(mapper, law, values, repeats) for law in ("gaussian", "rademacher")}
    found["flops"] = peak.peak("float32", repeats, shapes)["flops"]
    found["bytes"] = max(_reading(mapper, r, width, repeats) for r in rows)
    return found


def _best(mapper: devices.Mapper, program: Callable[..., Any], row: Any, repeats: int) -> float:
    """Returns the shortest seconds of a program that every device runs on its own `row`."""
    rows = mapper.split(jax.tree.map(lambda x: np.stack([x] * mapper.count), row))
    compiled = mapper.compile(program, (), (rows,))
    times = [timing.seconds(lambda: devices.launch(compiled, rows)) for _ in range(repeats + 1)]
    return min(times)


def _drawing(mapper: devices.Mapper, law: str, values: int, repeats: int) -> float:
    """Adds draws up in an array that a core's cache holds: values over the seconds."""

    def program(seed: jax.Array) -> jax.Array:
        def again(i: jax.Array, total: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.key(seed), i)
            return total + DENSE[law].draw(key, (values,))

        return jax.lax.fori_loop(0, _REPEATS, again, jnp.zeros(values, jnp.float32))

    return mapper.count * _REPEATS * values / _best(mapper, program, np.int32(0), repeats)


def _reading(mapper: devices.Mapper, rows: int, width: int, repeats: int) -> float:
    """Matrix times vector, again and again on the same matrix: its bytes over the seconds."""

    def program(x: jax.Array) -> jax.Array:
        def again(_: jax.Array, vector: jax.Array) -> jax.Array:
            return (x @ vector)[:1] * vector

        return jax.lax.fori_loop(0, _REPEATS, again, jnp.ones(width, jnp.float32))

    matrix = np.full((rows, width), 1 / width, np.float32)
    seconds = _best(mapper, program, matrix, repeats)
    return mapper.count * _REPEATS * matrix.nbytes / seconds


def count(factors: str, experts: int, rows: int, width: int, layers: int) -> dict[str, int]:
    """Counts what rank 1 adds to a block of `experts` with `rows` rows in all.

    Every layer: A and B, 2·width values, of each expert (one word each, or a bit of a word); for
    every row a product with A, width multiplications and additions, and as many with B; its input,
    read for the product with W, is read once more for that with A. What is added to x·W is counted
    as free: it can be part of the activation's own pass.
    """
    values = experts * layers * 2 * width
    half = -(-width // 32)
    words = experts * layers * 2 * half if factors == "rademacher" else values
    return {
        "values": values,
        "words": words,
        "operations": rows * layers * 4 * width,
        "bytes": rows * layers * width * _FLOAT,
    }


def floor(
    rates: dict[str, float], factors: str, counted: dict[str, int], pure: float
) -> dict[str, float]:
    """Returns the counts with the seconds that they take at least, and the share that is left.

    Args:
      rates: of `rates`.
      factors: their law.
      counted: of `count`.
      pure: seconds of the same rows without noise.
    """
    draw = counted["values"] / rates[factors]
    operation = counted["operations"] / rates["flops"]
    byte = counted["bytes"] / rates["bytes"]
    return {
        **counted,
        "pure_seconds": pure,
        "draw_seconds": draw,
        "operation_seconds": operation,
        "byte_seconds": byte,
        "share": pure / (pure + draw + max(operation, byte)),
    }
