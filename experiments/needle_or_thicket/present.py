"""The tables of the experiment, from its records alone."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from experiments.needle_or_thicket import draw
from experiments.needle_or_thicket.cells import PARTS
from experiments.needle_or_thicket.signals_table import signals_table
from experiments.needle_or_thicket.size import BASES, PAPER_SIGMA
from experiments.needle_or_thicket.summary import densest, pool
from experiments.needle_or_thicket.verdict import GOOD
from thicket_jax.reports.numbers import sigma_label


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the tables and the verdicts; draws the four figures into the folder."""
    signals = signals_table()
    table = {**table, "pooled": pool(table["neighbourhoods"], table["settings"]["margins"])}
    figures = ["paper.png", "density.png", "distance.png", "horizon.png"]
    draw.paper(table, signals, folder / figures[0])
    draw.density(table, folder / figures[1])
    draw.distance(table, folder / figures[2])
    draw.horizon(table, folder / figures[3])
    lines = [f"{row['claim']}: {row['verdict']}" for row in table["density_verdicts"]]
    for row in table["tuning_verdicts"]:
        counts = f"ahead {row['ahead']}, level {row['level']}, behind {row['behind']}"
        lines.append(f"ensemble against {row['opponent']}, {row['horizon']} steps: {counts}")
    return Shown(tables(table, signals), lines, figures)


def tables(table: Mapping[str, Any], signals: Mapping[str, Any]) -> dict[str, str]:
    """Returns Markdown by the name of the place that it has in the README.

    Args:
      table: the experiment's.
      signals: that of `experiments/signals`.
    """
    return {
        "picture": _picture(table, signals),
        "verdicts": _verdicts(table),
        "density": _density(table),
        "change": _change(table),
        "tuning": _tuning(table),
        "cost": _cost(table),
    }


def _picture(table: Mapping[str, Any], signals: Mapping[str, Any]) -> str:
    """How often the few sequences chose the expert that all of them had chosen."""
    best = {run["pair"]: run["best"]["id"] for run in signals["runs"] if run["seed"] == 0}
    cells = table["roll_outs"]
    same = sum(cell["best_id"] == best[cell["pair"]] for cell in cells)
    return f"The best expert of a panel is the best of the table's run in {same} of {len(cells)}."


def _verdicts(table: Mapping[str, Any]) -> str:
    rows = [
        [
            f"**{row['claim']}**: {row['text']}",
            row["verdict"],
            ", ".join(target for target, held in row["targets"].items() if not held) or "-",
        ]
        for row in table["density_verdicts"]
    ]
    first = markdown_table(["claim", "verdict", "does not hold for"], rows, left=3)
    rows = [
        [
            row["opponent"],
            str(row["horizon"]),
            *(str(row[name]) for name in ("ahead", "level", "behind")),
            number(10 ** row["log_ratio"]),
            row["verdict"],
        ]
        for row in table["tuning_verdicts"]
    ]
    k = table["settings"]["k"]
    head = [f"ensemble of {k} against", "steps", "ahead", "level", "behind", "error ratio"]
    second = markdown_table([*head, "at least as good"], rows)
    return f"{first}\n\n{second}"


def _density(table: Mapping[str, Any]) -> str:
    """The densest sigma and the paper's, for every base and target."""
    rows = []
    for target in _targets(table):
        for base in BASES:
            cells = _cells(table, base, target)
            best = densest(table["pooled"], base, target, GOOD)
            if not cells or best is None:
                continue
            paper = PAPER_SIGMA[base]
            at = {
                margin: _row(table, base, target, margin, sigma=paper)
                for margin in (0.0, GOOD, 0.9)
            }
            rows.append(
                [
                    f"{base} → {target}",
                    _spread([cell["error"] for cell in cells]),
                    sigma_label(paper),
                    *(_share(at[margin], "ge") for margin in at),
                    _share(at[0.0], "gt"),
                    sigma_label(best["sigma"]) if best["fraction_ge"] else "-",
                    _share(best, "ge"),
                ]
            )
    head = ["base → target", "base's error", "paper's σ", "≥, m = 0", "≥, m = ½", "≥, m = .9"]
    head += [">, m = 0", "densest σ", "there, m = ½"]
    size = table["settings"]
    n = max(row["n"] for row in table["pooled"])
    said = (
        f"Shares in % of {n} experts ({_seeds(table)}), with 95 % Wilson intervals; errors on "
        f"{size['train_items']} training sequences, lowest to highest seed."
    )
    return f"{said}\n\n{markdown_table(head, rows)}"


def _change(table: Mapping[str, Any]) -> str:
    """Shares at equal change of the next value."""
    changes = sorted({r["change"] for r in table["pooled"] if r["change"] is not None})
    rows = []
    for target in _targets(table):
        for base in BASES:
            cells = _cells(table, base, target)
            if not cells:
                continue
            row = [f"{base} → {target}"]
            for change in changes:
                own = [r["sigma"] for cell in cells for r in cell["rows"] if r["change"] == change]
                row.append(_spread(own))
                row.append(_share(_row(table, base, target, GOOD, change=change), "ge"))
            rows.append(row)
    head = ["base → target"]
    for change in changes:
        head += [f"σ for a change of {change:g}", "≥, m = ½"]
    return markdown_table(head, rows)


def _tuning(table: Mapping[str, Any]) -> str:
    """Errors of every model at every horizon, geometric means over sequences and seeds."""
    horizons = table["settings"]["horizons"]
    rows = []
    for target in _targets(table):
        own = [run["models"] for run in table["tunings"] if run["target"] == target]
        for name in own[0] if own else ():
            models = [run[name] for run in own]
            typical = [
                number(_geometric([m["geometric"][i] for m in models]))
                for i in range(len(horizons))
            ]
            plain = [
                number(_geometric([m["errors"][i] for m in models])) for i in range(len(horizons))
            ]
            rates = sorted({m["rate"] for m in models if "rate" in m})
            rows.append(
                [
                    f"{target}: {name}",
                    *typical,
                    *plain,
                    number(models[0]["flops"] / 1e12),
                    str(models[0]["forward_passes"]),
                    ", ".join(f"{rate:g}" for rate in rates) or "-",
                ]
            )
    head = ["target: model", *(f"typical, {h}" for h in horizons)]
    head += [*(f"mean, {h}" for h in horizons), "TFLOPs", "passes", "rates chosen"]
    return markdown_table(head, rows)


def _cost(table: Mapping[str, Any]) -> str:
    cells = [cell for part in PARTS for cell in table[part]]
    totals = {part: sum(_seconds(cell) for cell in table[part]) for part in PARTS}
    places = sorted({machine.sentence(cell["provenance"]) for cell in cells})
    said = ", ".join(
        f"{name} {totals[part] / 60:.1f}"
        for name, part in zip(
            ("roll-outs that are drawn", "neighbourhoods", "fine-tuning"), PARTS, strict=True
        )
    )
    return " ".join([f"Minutes: {sum(totals.values()) / 60:.1f} in all ({said}).", *places])


def _seconds(cell: Mapping[str, Any]) -> float:
    seconds = cell["seconds"]
    return float(sum(seconds.values()) if isinstance(seconds, Mapping) else seconds)


def _targets(table: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(cell["target"] for cell in table["neighbourhoods"]))


def _cells(table: Mapping[str, Any], base: str, target: str) -> list[Mapping[str, Any]]:
    return [c for c in table["neighbourhoods"] if (c["base"], c["target"]) == (base, target)]


def _row(
    table: Mapping[str, Any],
    base: str,
    target: str,
    margin: float,
    sigma: float | None = None,
    change: float | None = None,
) -> Mapping[str, Any] | None:
    wanted = (base, target, margin, sigma, change)
    names = ("base", "target", "margin", "sigma", "change")
    found = (row for row in table["pooled"] if tuple(row[name] for name in names) == wanted)
    return next(found, None)


def _share(row: Mapping[str, Any] | None, kind: str) -> str:
    if row is None:
        return "-"
    low, high = (100 * x for x in row[f"interval_{kind}"])
    return f"{100 * row[f'fraction_{kind}']:.1f} ({low:.1f} to {high:.1f})"


def _spread(values: Sequence[float]) -> str:
    low, high = number(min(values), 2), number(max(values), 2)
    return low if low == high else f"{low} to {high}"


def _seeds(table: Mapping[str, Any]) -> str:
    seeds = sorted({cell["seed"] for cell in table["neighbourhoods"]})
    return "seeds " + ", ".join(map(str, seeds))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _geometric(values: Sequence[float | None]) -> float | None:
    if any(value is None for value in values):
        return None
    return math.exp(_mean([math.log(value) for value in values if value is not None]))
