"""A rule of selection from its name, or from JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.errors import ArgumentError, check_choice
from thicket_jax.selection.halving import BUDGET, Halving
from thicket_jax.selection.race import DELTA, Race
from thicket_jax.selection.rounds import Rule


def check_rule(
    select: str,
    budget: float | None = None,
    delta: float | None = None,
    bounds: Sequence[float] | None = None,
) -> Rule | None:
    """Returns the rule called `select`, or None for `all`.

    Raises:
      ArgumentError: an unknown name, an option of another rule, or a value that cannot work.
    """
    check_choice("select", select, ("all", Halving.name, Race.name))
    for name, value, owner in (
        ("budget", budget, Halving.name),
        ("delta", delta, Race.name),
        ("bounds", bounds, Race.name),
    ):
        if value is not None and select != owner:
            raise ArgumentError(f"{name} is an option of select={owner!r}, not of {select!r}")
    if select == Halving.name:
        return Halving(BUDGET if budget is None else budget)
    if select == Race.name:
        return Race.checked(DELTA if delta is None else delta, bounds)
    return None


def from_json(value: Mapping[str, Any]) -> Rule:
    """Returns the rule that `to_json` wrote."""
    if value["rule"] == Halving.name:
        return Halving(value["budget"], value["rounds_at_most"])
    return Race.checked(value["delta"], value["bounds"])
