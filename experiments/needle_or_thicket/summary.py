"""Cells of several seeds → shares of good experts, pooled, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.analysis.intervals import wilson_interval


def pool(cells: Sequence[Mapping[str, Any]], margins: Sequence[float]) -> list[dict[str, Any]]:
    """Returns one row for each base, target, sigma or change, and margin, seeds pooled.

    At an equal change sigma differs between seeds, so that `sigma` is None there and `change` is
    None on the grid. Intervals are Wilson's, of the pooled experts: they say how well so many
    experts tell the share around these bases, not how much bases of other seeds differ.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        for row in cell["rows"]:
            sigma = row["sigma"] if row["change"] is None else None
            key = (cell["base"], cell["target"], sigma, row["change"])
            groups.setdefault(key, []).append(row)
    rows = []
    for (base, target, sigma, change), own in groups.items():
        n = sum(row["n"] for row in own)
        for at, margin in enumerate(margins):
            ge, gt = (sum(row[kind][at] for row in own) for kind in ("ge", "gt"))
            rows.append(
                {
                    "base": base,
                    "target": target,
                    "sigma": sigma,
                    "change": change,
                    "margin": margin,
                    "n": n,
                    "fraction_ge": ge / n,
                    "interval_ge": [round(x, 6) for x in wilson_interval(ge, n)],
                    "fraction_gt": gt / n,
                    "interval_gt": [round(x, 6) for x in wilson_interval(gt, n)],
                }
            )
    return rows


def densest(
    pooled: Sequence[Mapping[str, Any]], base: str, target: str, margin: float
) -> Mapping[str, Any] | None:
    """Returns the grid's row of the largest share; the smaller sigma where two are equal."""
    rows = [
        row
        for row in pooled
        if (row["base"], row["target"], row["margin"]) == (base, target, margin)
        and row["sigma"] is not None
    ]
    return max(rows, key=lambda row: (row["fraction_ge"], -row["sigma"]), default=None)
