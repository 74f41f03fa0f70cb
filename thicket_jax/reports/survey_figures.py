"""Pictures of a survey: density curves, rank correlations of tasks, experts as points."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from thicket_jax.analysis.survey import POINTS
from thicket_jax.reports.figures import COLOURS, RULE_COLOURS, canvas
from thicket_jax.reports.numbers import short, sigma_label

_MARKS = "o^sDvP*X"  # with a colour each, for more groups than colours
_LINES = (*RULE_COLOURS, COLOURS["base"], COLOURS["best"], COLOURS["truth"])


def draw(found: Mapping[str, Any], folder: pathlib.Path) -> dict[str, str]:
    """Draws what `survey.measure` found into `folder`; returns file name → caption."""
    shown = [_draw_curves(found, folder / "density.png")]
    if "discordance" in found:
        shown.append(_draw_correlation(found, folder / "discordance.png"))
        if found["specialists"] is not None:
            shown.append(_draw_specialists(found, folder / "specialists.png"))
    return dict(shown)


def _draw_curves(found: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    tasks = found["tasks"]
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    with canvas(2.6 * columns + 0.6, 2.3 * lines + 0.4, path) as figure:
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True).reshape(-1)
        for ax in axes[len(tasks) :]:
            ax.set_axis_off()
        for ax, (name, task) in zip(axes, tasks.items(), strict=False):
            for n, sigma in enumerate(found["sigma"]):
                rows = [row for row in task["curve"] if row["sigma"] == sigma]
                _draw_curve(ax, rows, n, sigma)
            ax.set_title(name)
            ax.set_ylim(0, 1)
            ax.grid(True)
        axes[0].legend(fontsize=7, loc="upper right")
        figure.supxlabel("margin m over the base's score", fontsize=9)
        figure.supylabel("solution density δ(m)", fontsize=9)
    return path.name, (
        "Share of the experts whose score is at least the base's plus m; shaded: Wilson intervals "
        "at 95 %."
    )


def _draw_curve(ax: Any, rows: list[dict[str, Any]], n: int, sigma: float) -> None:
    """One sigma's density: steps where the scores' own margins are all there, else a line."""
    x, y = [row["margin"] for row in rows], [row["fraction_ge"] for row in rows]
    low, high = zip(*(row["fraction_ge_interval"] for row in rows), strict=True)
    colour, label = _LINES[n % len(_LINES)], f"σ = {sigma_label(sigma)}"
    if len(rows) == 1:
        bars = [[y[0] - low[0]], [high[0] - y[0]]]
        ax.errorbar([n], y, bars, color=colour, marker="o", capsize=3, label=label, clip_on=False)
        ax.set_xticks([n / 2], ["0"])
        ax.set_xlim(-1, n + 1)
        return
    style = "pre" if len(rows) < POINTS else None
    drawn = "default" if style is None else "steps-pre"
    ax.plot(x, y, color=colour, label=label, drawstyle=drawn)
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, step=style)


def _draw_correlation(found: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    names, rows = list(found["tasks"]), found["discordance"]
    size = max(2.4, 0.5 * len(names) + 1.6)
    with canvas(size * len(rows) + 0.6, size + 0.3, path) as figure:
        axes = figure.subplots(1, len(rows), squeeze=False)[0]
        for n, (ax, row) in enumerate(zip(axes, rows, strict=True)):
            values = np.asarray(row["correlation"], float)
            image = ax.imshow(values, vmin=-1, vmax=1, cmap="PuOr_r")
            ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
            ax.set_yticks(range(len(names)), names if n == 0 else [""] * len(names), fontsize=7)
            ax.set_title(f"σ = {sigma_label(row['sigma'])}\nD = {short(row['discordance'])}")
            for (i, j), value in np.ndenumerate(values):
                if math.isfinite(value):
                    dark = "white" if abs(value) > 0.6 else "black"
                    ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color=dark)
        figure.colorbar(image, ax=axes, shrink=0.8, label="rank correlation")
    return path.name, (
        "How alike two tasks order the experts: 1 the same order, 0 unrelated. D is 1 minus the "
        "mean of what is off the diagonal."
    )


def _draw_specialists(found: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    parts, names = found["specialists"], list(found["tasks"])
    points, labels = np.asarray(parts["coordinates"]), np.asarray(parts["clusters"]["labels"])
    with canvas(5.2, 4.2, path) as figure:
        ax = figure.subplots()
        for group in range(labels.max() + 1):
            here = points[labels == group]
            ax.scatter(
                here[:, 0],
                here[:, 1],
                s=9,
                color=_LINES[group % len(_LINES)],
                marker=_MARKS[group % len(_MARKS)],
                label=f"group {group + 1} ({len(here)})",
                linewidths=0,
            )
        reach = 0.9 * float(np.abs(points).max())
        for name, x, y in zip(names, *parts["directions"][:2], strict=True):
            ax.annotate(name, (0, 0), (x * reach, y * reach), fontsize=7,
                        arrowprops={"arrowstyle": "<-", "color": "#444444"})  # fmt: skip
        ax.set_xlabel(f"first component, {parts['shares'][0]:.0%} of the variance")
        ax.set_ylabel(f"second component, {parts['shares'][1]:.0%}")
        figure.legend(loc="outside upper center", ncols=4, fontsize=7)
    return path.name, (
        "Experts by their percentile ranks among those of their sigma, along the two directions in "
        "which they differ most; arrows: where a task's good experts lie. Mean silhouette "
        f"{parts['clusters']['silhouette']:.2f} (near 0: a cut cloud, no groups)."
    )
