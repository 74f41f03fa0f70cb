"""Numbers and names as a report shows them: to the digits that their errors allow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def rule_label(name: str) -> str:
    """Returns a combine rule's name for people: `majority_vote` is `majority vote`."""
    return {"mean_probs": "mean probabilities"}.get(name, name.replace("_", " "))


def short(value: float | None, decimals: int | None = None) -> str:
    """Returns a number for people; None is a dash.

    Args:
      value: the number.
      decimals: how many; default as many as four significant digits need.
    """
    if value is None or not math.isfinite(value):
        return "—"
    if decimals is None:
        if value == 0:
            return "0"
        if not 1e-4 <= abs(value) < 1e6:
            mantissa, exponent = f"{value:.2e}".split("e")
            return f"{mantissa}e{int(exponent)}".replace("-", "−")
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def decimals_of(error: float | None) -> int | None:
    """Returns the decimals that show two digits of an error; None if it says nothing."""
    if error is None or not 1e-12 < error < 1e6:
        return None
    return max(0, 1 - math.floor(math.log10(error)))


def measured(value: float | None, error: float | None) -> tuple[str, str]:
    """Returns a mean and its standard error as text, to two digits of the error."""
    decimals = decimals_of(error)
    return short(value, decimals), short(error, decimals)


def difference(delta: float | None, interval: Sequence[float | None]) -> tuple[str, str]:
    """Returns a difference and its interval as text, to two digits of the half width."""
    low, high = (None if x is None or not math.isfinite(x) else x for x in interval)
    if low is None or high is None:
        return _signed(delta, None), "—"
    decimals = decimals_of((high - low) / 2)
    return _signed(delta, decimals), f"{short(low, decimals)} to {short(high, decimals)}"


def sigma_label(sigma: float) -> str:
    """Returns a sigma as it is typed, such as 0.002."""
    return f"{sigma:g}"


def experts_label(k: int) -> str:
    """Returns `1 expert`, `10 experts`."""
    return f"{k:,} expert" + ("s" if k != 1 else "")


def joined_rounds(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rounds, `experts`, `start` and `stop`, with successive ones of equal experts as one.

    >>> joined_rounds([dict(experts=9, start=0, stop=2), dict(experts=9, start=2, stop=4)])
    [{'experts': 9, 'start': 0, 'stop': 4}]
    """
    found: list[dict[str, Any]] = []
    for one in rounds:
        if found and found[-1]["experts"] == one["experts"]:
            found[-1]["stop"] = one["stop"]
        else:
            found.append(dict(one))
    return found


def _signed(value: float | None, decimals: int | None) -> str:
    return ("+" if value is not None and value > 0 else "") + short(value, decimals)
