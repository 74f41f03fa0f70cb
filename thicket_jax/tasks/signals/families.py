"""The families of 1-D signals: what a curve looks like and how its parameters are drawn.

A signal is a curve y(x) sampled at x = −2.5, −2.4, ... A family draws the curve's parameters
uniformly; a `one_` signal fixes them. Ranges and constants are those of the 1-D experiment of
Gan and Isola, Neural Thickets (arXiv 2603.12228).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import check_choice

START = -2.5
STEP = 0.1
FREQUENCY = 4.0  # radians per unit of x, of every periodic family

_CIRCLE = (0.0, 2 * math.pi)
_OFFSET = (-0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class Family:
    """A curve and the laws of its parameters.

    Attributes:
      curve: `(x [1, T], **parameters [num, 1]) -> y [num, T]`.
      ranges: (low, high) of each parameter, uniform.
      one: the parameters of the family's single fixed signal, `one_<name>`.
    """

    curve: Callable[..., jax.Array]
    ranges: Mapping[str, tuple[float, float]]
    one: Mapping[str, float]


def _line(x: jax.Array, slope: jax.Array, intercept: jax.Array) -> jax.Array:
    return slope * x + intercept


def _sinusoid(x: jax.Array, amplitude: jax.Array, phase: jax.Array, offset: jax.Array) -> jax.Array:
    return amplitude * jnp.sin(FREQUENCY * x + phase) + offset


def _squarewave(
    x: jax.Array, amplitude: jax.Array, sharpness: jax.Array, phase: jax.Array, offset: jax.Array
) -> jax.Array:
    return amplitude * jnp.tanh(sharpness * jnp.sin(FREQUENCY * x + phase)) + offset


def _sawtooth(x: jax.Array, amplitude: jax.Array, phase: jax.Array, offset: jax.Array) -> jax.Array:
    t = FREQUENCY * x + phase
    teeth = jnp.sin(t) - 0.5 * jnp.sin(2 * t) + 0.33 * jnp.sin(3 * t) - 0.25 * jnp.sin(4 * t)
    return 0.5 * amplitude * teeth + offset


def _harmonic(x: jax.Array, amplitude: jax.Array, phase: jax.Array, offset: jax.Array) -> jax.Array:
    overtone = 0.3 * jnp.sin(2 * FREQUENCY * x)  # its phase is fixed: the shape varies with `phase`
    return amplitude * (0.5 * jnp.sin(FREQUENCY * x + phase) + overtone) + offset


def _sigmoid(x: jax.Array, amplitude: jax.Array, phase: jax.Array, offset: jax.Array) -> jax.Array:
    return amplitude * jnp.tanh(0.1 * x + phase) + offset


FAMILIES: dict[str, Family] = {
    "line": Family(
        _line,
        {"slope": (-0.5, 0.5), "intercept": (-1.0, 1.0)},
        {"slope": -0.25, "intercept": 0.0},
    ),
    "sinusoid": Family(
        _sinusoid,
        {"amplitude": (0.8, 1.2), "phase": _CIRCLE, "offset": _OFFSET},
        {"amplitude": 0.5, "phase": 0.0, "offset": 0.0},
    ),
    "squarewave": Family(
        _squarewave,
        {"amplitude": (0.2, 0.4), "sharpness": (4.0, 6.0), "phase": _CIRCLE, "offset": _OFFSET},
        {"amplitude": 0.3, "sharpness": 5.0, "phase": 0.0, "offset": 0.0},
    ),
    "sawtooth": Family(
        _sawtooth,
        {"amplitude": (0.8, 1.2), "phase": _CIRCLE, "offset": _OFFSET},
        {"amplitude": 1.0, "phase": 0.0, "offset": 0.0},
    ),
    "harmonic": Family(
        _harmonic,
        {"amplitude": (0.8, 1.2), "phase": _CIRCLE, "offset": _OFFSET},
        {"amplitude": 1.0, "phase": 0.0, "offset": 0.0},
    ),
    "sigmoid": Family(
        _sigmoid,
        {"amplitude": (0.5, 1.5), "phase": (-math.pi, math.pi), "offset": _OFFSET},
        {"amplitude": 1.0, "phase": 0.0, "offset": 0.0},
    ),
}
_MOST_PARAMETERS = max(len(family.ranges) for family in FAMILIES.values())
MIXED = "mixed"
ONE = "one_"
SAMPLED = (*FAMILIES, MIXED)
"""The names that draw a fresh signal for every sequence."""
SIGNALS = (*SAMPLED, *(ONE + name for name in FAMILIES))
"""Every name that `family_batch` knows."""


def family_batch(name: str, key: jax.Array, num: int, length: int) -> jax.Array:
    """Draws `num` signals of a family, each `length` points from x = −2.5 in steps of 0.1.

    Vectorised and jitted, so it can be called inside a compiled loop; `mixed` draws all six
    families and picks one per sequence, uniformly.

    Args:
      name: a family, `mixed`, or `one_<family>`, which is the same signal `num` times.
      key: typed PRNG key; folded, not consumed.
      num: number of signals.
      length: points of each, T.

    Returns:
      float32 [num, T].

    Raises:
      ArgumentError: the name is unknown.
    """
    check_choice("name", name, SIGNALS)
    return _family_batch(name, key, num, length)


def grid(length: int) -> np.ndarray:
    """Returns the x of a signal's points, float64 [length]."""
    return START + STEP * np.arange(length)


def family_parameters(name: str, key: jax.Array, num: int) -> dict[str, jax.Array]:
    """Draws the parameters of `num` signals of one family: each float32 [num, 1], independent."""
    return _scaled(FAMILIES[name], _units(key, num))


def _units(key: jax.Array, num: int) -> jax.Array:
    """Uniform draws on [0, 1) for any one family's parameters: float32 [P, num, 1]."""
    return jax.random.uniform(jax.random.fold_in(key, 0), (_MOST_PARAMETERS, num, 1), jnp.float32)


def _scaled(family: Family, units: jax.Array) -> dict[str, jax.Array]:
    return {
        parameter: low + (high - low) * unit
        for (parameter, (low, high)), unit in zip(family.ranges.items(), units, strict=False)
    }


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _family_batch(name: str, key: jax.Array, num: int, length: int) -> jax.Array:
    x = jnp.asarray(grid(length)[None], jnp.float32)
    if name == MIXED:
        # A sequence is of one family, so the same draws can stand for the parameters of all six.
        units = _units(key, num)
        drawn = jnp.stack([f.curve(x, **_scaled(f, units)) for f in FAMILIES.values()])
        choice = jax.random.randint(jax.random.fold_in(key, 1), (num,), 0, len(FAMILIES))
        return drawn[choice, jnp.arange(num)]
    if name.startswith(ONE):
        family = FAMILIES[name.removeprefix(ONE)]
        one = family.curve(x, **{k: jnp.float32(v) for k, v in family.one.items()})
        return jnp.broadcast_to(one, (num, length))
    return FAMILIES[name].curve(x, **family_parameters(name, key, num))
