"""Rotary positions as a checkpoint's `config.json` states them, in its older and newer spelling.

Older: `rope_theta` and `rope_scaling`, the kind being `type` or `rope_type`. Newer (transformers
5): `rope_parameters` with all of it, which OLMo-3 has once for each type of layer.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.rope import KINDS, Rope

FULL, SLIDING = "full_attention", "sliding_attention"  # the types of layers
_ORIGINAL = "original_max_position_embeddings"

# What a config may say of each kind, besides the kind and rope_theta.
_PARAMETERS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", _ORIGINAL, "low_freq_factor", "high_freq_factor"}),
    "yarn": frozenset(
        {"factor", _ORIGINAL, "attention_factor", "beta_fast", "beta_slow"}
        | {"mscale", "mscale_all_dim", "truncate"}
    ),
}


def read_ropes(
    path: pathlib.Path,
    values: Mapping[str, Any],
    layer_types: Sequence[str],
    *,
    max_positions: int,
    default_theta: float,
    by_type: bool,
) -> tuple[Rope, ...]:
    """Reads each layer's rotary positions.

    Args:
      path: the config's file, for errors.
      values: what is in it.
      layer_types: FULL or SLIDING for each layer.
      max_positions: `max_position_embeddings`.
      default_theta: where the config has no `rope_theta`.
      by_type: each type of layer has its own, and sliding layers are not scaled (OLMo-3).

    Raises:
      DataError: a kind or parameter is not implemented, missing, impossible or said twice.
    """
    tables: dict[str, dict[str, Any]] = {}
    for name in ("rope_scaling", "rope_parameters"):
        tables[name] = values.get(name) or {}
        if not isinstance(tables[name], dict):
            raise DataError(f"{path}: {name} is {values[name]!r}; it must be an object")
    theta, parameters = values.get("rope_theta"), tables["rope_parameters"]
    nested = [found for found in parameters.values() if isinstance(found, dict)]
    for found in (parameters, *nested):
        if None not in (theta, found.get("rope_theta")) and found["rope_theta"] != theta:
            raise DataError(
                f"{path}: rope_theta is {theta!r}, and in rope_parameters {found['rope_theta']!r}; "
                "remove the wrong one"
            )

    def parse(name: str, found: Mapping[str, Any]) -> Rope:
        return _parse(
            found,
            theta=default_theta if theta is None else theta,
            original=values.get(_ORIGINAL),
            max_positions=max_positions,
            where=f"{path}: {name}",
        )

    if by_type:
        typed = _by_type(path, values, default_theta)
        ropes = {found: parse(f"rope parameters of {found}", typed[found]) for found in typed}
        return tuple(ropes[found] for found in layer_types)
    read = [parse(name, found) for name, found in tables.items() if found]
    if len(set(read)) > 1:
        raise DataError(f"{path}: rope_scaling and rope_parameters differ; remove the wrong one")
    return (read[0] if read else parse("rope_theta", {}),) * len(layer_types)


def _by_type(
    path: pathlib.Path, values: Mapping[str, Any], default_theta: float
) -> dict[str, dict[str, Any]]:
    """OLMo-3's parameters for each type of layer.

    What versions of transformers read in different ways is refused: version 5 ignores a theta of
    the sliding layers, a `type` and a `truncate` unless they stand where it writes them itself.
    """
    scaling, parameters = (values.get(name) or {} for name in ("rope_scaling", "rope_parameters"))
    typed = {found: parameters.get(found) or {} for found in (FULL, SLIDING)}
    for found, value in typed.items():
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: {found} in rope_parameters is {value!r}; it must be an object"
            )
    sliding_theta = typed[SLIDING].get("rope_theta") or default_theta
    theta = values.get("rope_theta") or sliding_theta
    unclear = {
        f"rope_parameters without {FULL} and {SLIDING}": parameters.keys() - typed.keys(),
        "rope_scaling beside rope_parameters": scaling and parameters,
        "rope_scaling without rope_type": scaling and "rope_type" not in scaling,
        f"a rope_theta other than {default_theta:g} for all layers": theta != sliding_theta,
        f"{_ORIGINAL} for all layers": values.get(_ORIGINAL),
        "truncate = false": any(
            found.get("truncate", True) is not True for found in (scaling, *typed.values())
        ),
    }
    for what, is_so in unclear.items():
        if is_so:
            raise DataError(
                f"{path}: {what} is one model to one version of transformers and another to the "
                f"next; give rope_parameters with {FULL} and {SLIDING}, each with its own "
                "rope_type and rope_theta, and truncate true or left out"
            )
    return typed if parameters else {FULL: scaling, SLIDING: {}}


def _parse(
    parameters: Mapping[str, Any], *, theta: Any, original: Any, max_positions: int, where: str
) -> Rope:
    """One set of parameters; `theta` where they have none, `original` wins over what they have."""
    given = {name: value for name, value in parameters.items() if value is not None}
    kind = given.pop("rope_type", None)
    kind = given.get("type", "default") if kind is None else kind
    if kind not in KINDS:
        raise DataError(
            f"{where}: the rope type {kind!r} is not implemented; known are {', '.join(KINDS)}"
        )
    if given.pop("type", kind) != kind:
        raise DataError(f"{where}: type is not the same as rope_type; remove type")
    known = _PARAMETERS[kind]
    if given.pop("partial_rotary_factor", 1) != 1:
        raise DataError(f"{where}: a partial_rotary_factor other than 1 is not implemented")
    for stray in ("attn_factor", "finetuned"):  # read by nothing: attention_factor is
        given.pop(stray, None)
    theta = _number(where, "rope_theta", given.pop("rope_theta", theta), above=1)
    for name, value in given.items():
        if name not in known and value:
            raise DataError(
                f"{where}: {name} = {value!r} has no meaning for the rope type {kind!r}, which "
                f"takes {', '.join(sorted(known)) or 'nothing'} besides rope_theta"
            )
    if kind == "default":
        return Rope(kind, theta)
    if "factor" not in given and (kind != "yarn" or "factor" not in parameters):
        raise DataError(f"{where}: factor is missing, which the rope type {kind!r} needs")
    if kind == "linear":
        return Rope(kind, theta, _number(where, "factor", given["factor"]))

    original = given.get(_ORIGINAL, max_positions) if original is None else original
    if isinstance(original, bool) or not isinstance(original, int) or original < 1:
        raise DataError(f"{where}: {_ORIGINAL} is {original!r}; it must be a whole number above 0")
    # A null factor of yarn is the ratio of the two lengths.
    factor = _number(where, "factor", given.get("factor", max_positions / original))
    if kind == "llama3":
        for name in ("low_freq_factor", "high_freq_factor"):
            if name not in given:
                raise DataError(f"{where}: {name} is missing, which the rope type 'llama3' needs")
        low = _number(where, "low_freq_factor", given["low_freq_factor"])
        high = _number(where, "high_freq_factor", given["high_freq_factor"], above=low)
        return Rope(kind, theta, factor, original, low, high)
    truncate = given.get("truncate", parameters.get("truncate", True))
    if not isinstance(truncate, bool):
        raise DataError(f"{where}: truncate is {truncate!r}; it must be true or false")
    return Rope(
        kind,
        theta,
        factor,
        original,
        beta_fast=_number(where, "beta_fast", given.get("beta_fast") or 32),
        beta_slow=_number(where, "beta_slow", given.get("beta_slow") or 1),
        truncate=truncate,
        attention_factor=_attention_factor(where, given, factor),
    )


def _attention_factor(where: str, given: Mapping[str, Any], factor: float) -> float:
    """What yarn multiplies cosines and sines by: given, or from the factor's logarithm."""
    if "attention_factor" in given:
        return _number(where, "attention_factor", given["attention_factor"])

    def growth(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = given.get("mscale"), given.get("mscale_all_dim")
    if not (above and below):
        return growth(1.0)
    return growth(_number(where, "mscale", above)) / growth(_number(where, "mscale_all_dim", below))


def _number(where: str, name: str, value: Any, above: float = 0) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not above < value < math.inf:
        raise DataError(f"{where}: {name} is {value!r}; it must be a number above {above:g}")
    return float(value)
