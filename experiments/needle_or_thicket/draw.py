"""The four figures, from the table alone."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.needle_or_thicket import roll_outs
from experiments.needle_or_thicket.size import BASES, PAPER_SIGMA
from experiments.needle_or_thicket.verdict import GOOD
from thicket_jax.reports.figures import COLOURS, canvas
from thicket_jax.tasks.signals.families import grid
from thicket_jax.tasks.signals.task import CONTEXT

COLOUR = {"random": "#009e73", "mixture": "#d55e00", "matched": "#0072b2"}
MARK = {"random": "o", "mixture": "s", "matched": "^"}
LABEL = {
    "random": "random (Xavier)",
    "mixture": "pretrained on the mixture",
    "matched": "pretrained on the target's family",
}
_ASIDE = {"random": 0.94, "mixture": 1.0, "matched": 1.06}  # so that intervals stand side by side
_STYLES = {
    "base": ("#0072b2", (0, (4, 1.5))),
    "best expert": ("#e69f00", "-"),
    "ensemble": ("#d55e00", "-"),
    "Adam, next value": ("#56b4e9", "-"),
    "Adam, roll-out": ("#000000", "-"),
}


def paper(table: Mapping[str, Any], signals: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws roll-outs of nine pairs, with the errors of `experiments/signals`."""
    cells = {cell["pair"]: cell for cell in table["roll_outs"]}
    numbers = {row["pair"]: row for row in signals["pairs"]}
    rows = [pairs for pairs in roll_outs.PAIRS if all(pair in cells for pair in pairs)]
    with canvas(10.5, 2.25 * len(rows) + 1.1, path) as figure:
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        panels = figure.subplots(len(rows), 3, squeeze=False, sharex=True)
        for line, pairs in enumerate(rows):
            for column, pair in enumerate(pairs):
                axes = panels[line, column]
                _curves(axes, cells[pair])
                title = f"{pair.replace(':', ' → ')}\n{_numbers(numbers[pair])}"
                if not line:
                    title = f"{_bold(roll_outs.COLUMNS[column])}\n{title}"
                axes.set_title(title, loc="left", fontsize=8.5, linespacing=1.35)
                if line == len(rows) - 1:
                    axes.set_xlabel("x")
            panels[line, 0].set_ylabel("y")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)


def _bold(words: str) -> str:
    return "$\\bf{" + words.replace(" ", "\\ ") + "}$"


def _numbers(row: Mapping[str, Any]) -> str:
    base, ensemble = (f"{row[kind]:.2g}" for kind in ("base", "ensemble"))
    return f"error {base} → {ensemble}, × {row['ratio']:.2g}; good: {100 * row['share']:.2g} %"


def _curves(axes: Any, cell: Mapping[str, Any]) -> None:
    truth = np.array(cell["truth"])
    x = grid(len(truth))
    last = truth[CONTEXT - 1]
    values = np.array(cell["experts"], float)

    def line(curve: Any, **style: Any) -> None:
        axes.plot(x[CONTEXT - 1 :], np.concatenate([[last], np.array(curve, float)]), **style)

    axes.axvspan(x[0], x[CONTEXT - 1], color="#000000", alpha=0.07, lw=0, label="context")
    axes.plot(x, truth, color=COLOURS["truth"], lw=2.2, label="target signal")
    for count, curve in enumerate(values):
        label = None if count else f"the best {len(values)} experts"
        line(curve, color=COLOURS["best"], lw=0.7, alpha=0.8, label=label)
    line(cell["base"], color=COLOURS["base"], lw=1.5, ls=(0, (4, 1.5)), label="base")
    label = f"ensemble of {len(values)}"
    line(values.mean(0), color=COLOURS["ensemble"], lw=1.6, label=label)
    low, high = truth.min(), truth.max()
    margin = 0.45 * max(high - low, 0.3)
    axes.set(xlim=(x[0], x[-1]), ylim=(low - margin, high + margin))


def density(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws δ against σ, at equal change of the function, and against the margin."""
    pooled = table["pooled"]
    targets = list(dict.fromkeys(row["target"] for row in pooled))
    with canvas(3.5 * max(2, len(targets)), 9.0, path) as figure:
        panels = figure.subplots(4, len(targets), squeeze=False, sharey="row")
        for column, target in enumerate(targets):
            own = [row for row in pooled if row["target"] == target]
            for line, (margin, name) in enumerate(
                (
                    (0.0, "better than the base (>)"),
                    (GOOD, "at most half of\nthe base's error (≥)"),
                )
            ):
                kind = "ge" if margin else "gt"
                _shares(panels[line, column], table, own, target, "sigma", margin, kind)
                panels[line, column].set_xlabel(_sigma_words(table))
                panels[line, 0].set_ylabel(f"share of experts\n{name}")
            _shares(panels[2, column], table, own, target, "change", GOOD, "ge")
            panels[2, column].set_xlabel("change of the next value, root mean square")
            panels[2, 0].set_ylabel("share of experts\nat most half of\nthe base's error (≥)")
            _margins(panels[3, column], own)
            panels[3, 0].set_ylabel("δ(m) at the paper's σ")
            panels[0, column].set_title(f"target: {target}")
        _legend(figure, panels[0, 0])


def _sigma_words(table: Mapping[str, Any]) -> str:
    """σ, and how far that is: ‖ε‖ is near the root of the number of parameters."""
    root = math.sqrt(table["neighbourhoods"][0]["parameters"])
    return f"σ (distance ‖θ′ − θ‖ ≈ {root:.0f} σ)"


def _shares(
    axes: Any,
    table: Mapping[str, Any],
    pooled: Sequence[Mapping[str, Any]],
    target: str,
    at: str,
    margin: float,
    kind: str,
) -> None:
    """Pooled shares with their intervals, and those of single seeds as thin lines."""
    place = list(table["settings"]["margins"]).index(margin)
    for base in BASES:
        rows = [
            row
            for row in pooled
            if (row["base"], row["margin"]) == (base, margin) and row[at] is not None
        ]
        rows.sort(key=lambda row: row[at])
        if not rows:
            continue
        _points(axes, [row[at] * _ASIDE[base] for row in rows], rows, base, kind)
        for cell in table["neighbourhoods"]:
            if (cell["base"], cell["target"]) != (base, target):
                continue
            single = [r for r in cell["rows"] if (r["change"] is None) == (at == "sigma")]
            single.sort(key=lambda row: row[at])
            shares = [row[kind][place] / row["n"] for row in single]
            axes.plot([r[at] for r in single], shares, color=COLOUR[base], lw=0.6, alpha=0.5)
    size = table["settings"]
    if margin:
        share = size["k"] / size["num"]
        axes.axhline(share, color="#333333", lw=0.9, ls=":")
        axes.annotate(
            "K/N", (1, share), xycoords=("axes fraction", "data"), xytext=(3, -3),
            textcoords="offset points", ha="left", fontsize=8, color="#333333",
        )  # fmt: skip
    axes.set_xscale("log")
    _share_axis(axes)


def _points(
    axes: Any, x: Sequence[float], rows: Sequence[Mapping[str, Any]], base: str, kind: str
) -> None:
    """A line through shares, with their intervals."""
    y = np.array([row[f"fraction_{kind}"] for row in rows])
    low, high = np.array([row[f"interval_{kind}"] for row in rows]).T
    axes.errorbar(
        x, y, [np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt=MARK[base] + "-", ms=4,
        lw=1.6, elinewidth=0.9, capsize=1.8, color=COLOUR[base], label=LABEL[base],
    )  # fmt: skip


def _share_axis(axes: Any) -> None:
    """Logarithmic down to one percent, and linear below, so that zero has a place."""
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    axes.set_ylim(-0.001, 1.0)
    axes.set_yticks([0, 0.01, 0.1, 1], ["0", "1 %", "10 %", "100 %"])
    axes.grid()


def _margins(axes: Any, pooled: Sequence[Mapping[str, Any]]) -> None:
    for base in BASES:
        sigma = PAPER_SIGMA[base]
        rows = [row for row in pooled if (row["base"], row["sigma"]) == (base, sigma)]
        rows.sort(key=lambda row: row["margin"])
        if not rows:
            continue
        aside = 0.2 * (_ASIDE[base] - 1)
        _points(axes, [row["margin"] + aside for row in rows], rows, base, "ge")
    axes.set_xlabel("margin m: error at most (1 − m) of the base's")
    _share_axis(axes)


def distance(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws the experts' errors over the base's against σ, and at equal change."""
    cells = table["neighbourhoods"]
    targets = list(dict.fromkeys(cell["target"] for cell in cells))
    with canvas(3.5 * max(2, len(targets)), 5.6, path) as figure:
        panels = figure.subplots(2, len(targets), squeeze=False, sharey=True)
        for column, target in enumerate(targets):
            for line, at in enumerate(("sigma", "change")):
                axes = panels[line, column]
                for base in BASES:
                    _bands(axes, _over_seeds(cells, base, target, at), base)
                axes.axhline(1, color="#555555", lw=0.8)
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.set_ylim(2e-2, 3e4)
                axes.grid()
                panels[line, 0].set_ylabel("error over the base's error")
            panels[0, column].set_title(f"target: {target}")
            panels[0, column].set_xlabel(_sigma_words(table))
            panels[1, column].set_xlabel("change of the next value, root mean square")
        axes = panels[0, 0]
        axes.fill_between([], [], [], color="#888888", alpha=0.25, lw=0, label="10 to 90 %")
        axes.plot([], [], color="#444444", lw=1.7, label="median")
        axes.plot([], [], ":", color="#444444", lw=1.3, label="best")
        _legend(figure, axes)


def _over_seeds(
    cells: Sequence[Mapping[str, Any]], base: str, target: str, at: str
) -> list[tuple[float, dict[str, float]]]:
    """(sigma or change, geometric means over the seeds of median, 10 %, 90 % and best)."""
    found: dict[float, list[Mapping[str, Any]]] = {}
    for cell in cells:
        if (cell["base"], cell["target"]) != (base, target):
            continue
        for row in cell["rows"]:
            if (row["change"] is None) == (at == "sigma"):
                found.setdefault(row[at], []).append(row)
    return [
        (
            x,
            {
                name: math.exp(np.mean([math.log(_number(row[name])) for row in rows]))
                for name in ("median", "low", "high", "best")
            },
        )
        for x, rows in sorted(found.items())
    ]


def _number(value: float | None) -> float:
    """A ratio on a logarithmic axis; one that is no number lies far above it."""
    return 1e30 if value is None else max(value, 1e-12)


def _bands(axes: Any, rows: Sequence[tuple[float, dict[str, float]]], base: str) -> None:
    if not rows:
        return
    x = [place for place, _ in rows]
    of = {name: [row[name] for _, row in rows] for name in ("median", "low", "high", "best")}
    colour = COLOUR[base]
    axes.fill_between(x, of["low"], of["high"], color=colour, alpha=0.18, lw=0)
    axes.plot(x, of["median"], MARK[base] + "-", color=colour, ms=4, lw=1.7, label=LABEL[base])
    axes.plot(x, of["best"], ":", color=colour, lw=1.3)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)


def horizon(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws the squared error of a roll-out step by step, beyond the steps trained on."""
    runs = table["tunings"]
    targets = list(dict.fromkeys(run["target"] for run in runs))
    trained = table["settings"]["horizons"][0]
    with canvas(3.5 * max(2, len(targets)), 3.6, path) as figure:
        panels = figure.subplots(1, len(targets), squeeze=False)[0]
        for axes, target in zip(panels, targets, strict=True):
            own = [run["models"] for run in runs if run["target"] == target]
            for name in own[0]:
                style = _STYLES.get("ensemble" if name.startswith("ensemble") else name)
                if style is None:  # the other way of choosing a learning rate is in the table
                    continue
                curves = np.array([models[name]["curve"] for models in own], float)
                logs = np.log10(np.clip(np.nan_to_num(curves, nan=1e30), 1e-12, 1e30))
                steps = (np.arange(curves.shape[1]) + 0.5) * 10
                for curve in logs:
                    axes.plot(steps, 10**curve, color=style[0], lw=0.5, alpha=0.45)
                middle = 10 ** logs.mean(0)
                axes.plot(steps, middle, color=style[0], ls=style[1], lw=1.8, label=name)
            axes.axvspan(0, trained, color="#000000", alpha=0.06, lw=0)
            axes.annotate(
                f"trained on\n{trained} steps", (3, 0.98), xycoords=("data", "axes fraction"),
                fontsize=8, color="#444444", va="top",
            )  # fmt: skip
            axes.set(yscale="log", title=f"target: {target}", xlabel="step of the roll-out")
            axes.set_xlim(0, None)
            axes.grid()
        panels[0].set_ylabel("squared error\n(median of test sequences)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)
