"""Rotary positions as a checkpoint's `config.json` states them, in its older and newer spelling.

Older: `rope_theta` and `rope_scaling`, the kind being `type` or `rope_type`. Newer (transformers
5): `rope_parameters` with all of it, which some families have once for each type of layer.
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
    "longrope": frozenset({"factor", _ORIGINAL, "attention_factor", "short_factor", "long_factor"}),
}
_OLDER = {"su": "longrope"}  # names of kinds in old files


def read_ropes(
    path: pathlib.Path,
    values: Mapping[str, Any],
    layer_types: Sequence[str],
    *,
    max_positions: int,
    default_theta: float,
    by_type: bool,
    local_theta: float | None = None,
    partial: bool = False,
) -> tuple[Rope, ...]:
    """Reads each layer's rotary positions.

    Args:
      path: the config's file, for errors.
      values: what is in it.
      layer_types: FULL or SLIDING for each layer.
      max_positions: `max_position_embeddings`.
      default_theta: where the config has no `rope_theta`.
      by_type: each type of layer has its own, and of the older spelling's scaling, sliding layers
        have nothing.
      local_theta: of the sliding layers where the config has no `rope_local_base_freq`, and
        `rope_theta` is that of the full ones alone; None: they have the same.
      partial: a part of each head may be turned, `partial_rotary_factor` of it.

    Raises:
      DataError: a kind or parameter is not implemented, missing, impossible or said twice.
    """
    tables: dict[str, dict[str, Any]] = {}
    for name in ("rope_scaling", "rope_parameters"):
        tables[name] = values.get(name) or {}
        if not isinstance(tables[name], dict):
            raise DataError(f"{path}: {name} is {values[name]!r}; it must be an object")
    theta, parameters = values.get("rope_theta"), tables["rope_parameters"]
    local = values.get("rope_local_base_freq") if local_theta is not None else None
    stated = [("rope_theta", theta, parameters)]
    for kind in (FULL, SLIDING):
        found = parameters.get(kind)
        own = kind == SLIDING and local_theta is not None
        name, value = ("rope_local_base_freq", local) if own else ("rope_theta", theta)
        stated += [(name, value, found)] if isinstance(found, dict) else []
    for name, value, found in stated:
        if None not in (value, found.get("rope_theta")) and found["rope_theta"] != value:
            raise DataError(
                f"{path}: {name} is {value!r}, and in rope_parameters {found['rope_theta']!r}; "
                "remove the wrong one"
            )

    def parse(name: str, found: Mapping[str, Any], theta: Any = theta) -> Rope:
        return _parse(
            found,
            theta=default_theta if theta is None else theta,
            original=values.get(_ORIGINAL),
            max_positions=max_positions,
            where=f"{path}: {name}",
            share=(values.get("partial_rotary_factor") or 1) if partial else None,
        )

    if by_type:
        typed = _by_type(path, values, default_theta, local_theta)
        thetas = {FULL: theta, SLIDING: theta}
        if local_theta is not None:
            thetas[SLIDING] = local_theta if local is None else local
        ropes = {
            found: parse(f"rope parameters of {found}", typed[found], thetas[found])
            for found in typed
        }
        return tuple(ropes[found] for found in layer_types)
    read = [parse(name, found) for name, found in tables.items() if found]
    if len(set(read)) > 1:
        raise DataError(f"{path}: rope_scaling and rope_parameters differ; remove the wrong one")
    return (read[0] if read else parse("rope_theta", {}),) * len(layer_types)


def _by_type(
    path: pathlib.Path, values: Mapping[str, Any], default_theta: float, local_theta: float | None
) -> dict[str, dict[str, Any]]:
    """The parameters for each type of layer.

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
        f"a rope_theta other than {default_theta:g} for all layers": (
            local_theta is None and theta != sliding_theta
        ),
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
    parameters: Mapping[str, Any],
    *,
    theta: Any,
    original: Any,
    max_positions: int,
    where: str,
    share: Any,
) -> Rope:
    """One set of parameters; `theta` where they have none, `original` wins over what they have.

    `share` is the part of a head that is turned, where they do not say; None: all, whatever.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    kind = given.pop("rope_type", None)
    kind = given.get("type", "default") if kind is None else kind
    kind = _newer(kind)
    if kind not in KINDS:
        raise DataError(
            f"{where}: the rope type {kind!r} is not implemented; known are {', '.join(KINDS)}"
        )
    if _newer(given.pop("type", kind)) != kind:
        raise DataError(f"{where}: type is not the same as rope_type; remove type")
    known = _PARAMETERS[kind]
    part = given.pop("partial_rotary_factor", 1 if share is None else share)
    if share is None and part != 1:
        raise DataError(f"{where}: a partial_rotary_factor other than 1 is not implemented")
    part = _number(where, "partial_rotary_factor", part)
    if part > 1 or share not in (None, 1, part):
        raise DataError(
            f"{where}: partial_rotary_factor is {part!r}; it must be said once, and be 1 at most"
        )
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
        return Rope(kind, theta, share=part)
    implied = kind == "longrope" or (kind == "yarn" and "factor" in parameters)
    if "factor" not in given and not implied:
        raise DataError(f"{where}: factor is missing, which the rope type {kind!r} needs")
    if kind == "linear":
        return Rope(kind, theta, _number(where, "factor", given["factor"]), share=part)

    original = given.get(_ORIGINAL, max_positions) if original is None else original
    if isinstance(original, bool) or not isinstance(original, int) or original < 1:
        raise DataError(f"{where}: {_ORIGINAL} is {original!r}; it must be a whole number above 0")
    # A null factor of yarn is the ratio of the two lengths, and so is one of longrope's left out.
    factor = _number(where, "factor", given.get("factor", max_positions / original))
    if kind == "llama3":
        for name in ("low_freq_factor", "high_freq_factor"):
            if name not in given:
                raise DataError(f"{where}: {name} is missing, which the rope type 'llama3' needs")
        low = _number(where, "low_freq_factor", given["low_freq_factor"])
        high = _number(where, "high_freq_factor", given["high_freq_factor"], above=low)
        return Rope(kind, theta, factor, original, low, high, share=part)
    if kind == "longrope":
        return Rope(
            kind,
            theta,
            factor,
            original,
            attention_factor=_longrope_attention_factor(where, given, factor, original),
            share=part,
            short_factors=_factors(where, "short_factor", given),
            long_factors=_factors(where, "long_factor", given),
        )
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
        share=part,
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


def _newer(kind: Any) -> Any:
    """The name of a kind as new files have it."""
    return _OLDER.get(kind, kind) if isinstance(kind, str) else kind


def _longrope_attention_factor(
    where: str, given: Mapping[str, Any], factor: float, original: int
) -> float:
    """What longrope multiplies cosines and sines by: given, or from the lengths' logarithms."""
    if "attention_factor" in given:
        return _number(where, "attention_factor", given["attention_factor"])
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _factors(where: str, name: str, given: Mapping[str, Any]) -> tuple[float, ...]:
    found = given.get(name)
    if not isinstance(found, list):
        said = "missing" if found is None else repr(found)
        raise DataError(f"{where}: {name} is {said}; the rope type 'longrope' needs a list")
    return tuple(_number(where, name, value) for value in found)


def _number(where: str, name: str, value: Any, above: float = 0) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not above < value < math.inf:
        raise DataError(f"{where}: {name} is {value!r}; it must be a number above {above:g}")
    return float(value)
