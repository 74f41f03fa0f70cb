"""What kind of numbers a leaf holds: any, quantised ones, and the dtype that JAX gives it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ParameterError


@functools.lru_cache(maxsize=64)
def is_number(dtype: Any) -> bool:
    """Whether JAX has arrays of this dtype: numbers, booleans and keys."""
    try:
        if jnp.issubdtype(dtype, jax.dtypes.extended):
            return True
        jax.typeof(np.zeros((), dtype))
    except (TypeError, ValueError):
        return False
    return True


def is_quantised(dtype: Any) -> bool:
    """Integers (not booleans) and floats of at most 8 bits hold quantised weights."""
    if jnp.issubdtype(dtype, jnp.floating):
        return bool(jnp.finfo(dtype).bits <= 8)
    return bool(jnp.issubdtype(dtype, jnp.integer))


def canonical_dtype(path: str, dtype: Any) -> Any:
    """Returns the dtype that JAX gives a leaf; one that is no number is a `ParameterError`."""
    if not is_number(dtype):
        raise ParameterError(
            f"params leaf {path or '(root)'!r} is an array of {dtype}, not of numbers"
        )
    return jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
