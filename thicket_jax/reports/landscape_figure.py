"""A landscape's colours, and its picture: a panel for each task, and all tasks as one colour.

One task is drawn from orange (worse than θ) over white to purple (better). Several are mixed like
inks on white: each task's own ink is as strong as its gain, so white is where none is better than
θ. Blue and orange are told apart by colour-blind readers; with three inks the panels are for them.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.reports.figures import canvas

INKS = ("#0072b2", "#e69f00", "#cc3377")
FAILED = "#9a9a9a"
BELOW, ABOVE = "#b35806", "#542788"  # one task: as much worse, as much better as the limit


def limit(gains: np.ndarray) -> float:
    """Returns the gain at which colours saturate: the best one, or a typical loss if larger.

    Typical is the median of the absolute gains: roll-outs that diverge would otherwise leave
    everything else white.
    """
    finite = gains[np.isfinite(gains)]
    if not finite.size:
        return 1.0
    found = max(float(finite.max()), float(np.median(np.abs(finite))))
    return found if found > 0 else 1.0


def one_task(gains: np.ndarray, top: float) -> np.ndarray:
    """Returns RGB [..., 3] of one task's gains; not finite is the colour of failed points."""
    share = np.clip(np.nan_to_num(gains / top), -1, 1)[..., None]
    colour = np.where(share < 0, _rgb(BELOW), _rgb(ABOVE))
    mixed = 1 - np.abs(share) * (1 - colour)
    return np.where(np.isfinite(gains)[..., None], mixed, _rgb(FAILED))


def all_tasks(gains: Sequence[np.ndarray], tops: Sequence[float]) -> np.ndarray:
    """Returns RGB [..., 3] of up to three tasks' gains as inks; see the module."""
    mixed = np.ones((*gains[0].shape, 3))
    failed = np.zeros(gains[0].shape, bool)
    for values, top, ink in zip(gains, tops, INKS, strict=False):
        strength = np.clip(np.nan_to_num(values / top), 0, 1)[..., None]
        mixed = mixed * (1 - strength * (1 - _rgb(ink)))
        failed |= ~np.isfinite(values)
    return np.where(failed[..., None], _rgb(FAILED), mixed)


def _rgb(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def gains_of(task: Mapping[str, Any]) -> np.ndarray:
    """Returns a task's gains, float64 [len(y), len(x)]; NaN where a point failed."""
    rows = [[math.nan if g is None else g for g in row] for row in task["gains"]]
    return np.array(rows, np.float64)


def draw(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws a landscape, as in landscape.json, to a PNG."""
    tasks = found["tasks"]
    gains = [gains_of(task) for task in tasks]
    tops = [limit(values) for values in gains]
    panels = len(tasks) + (len(tasks) > 1)
    with canvas(3.4 * panels + 0.4, 4.2, path) as figure:
        axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
        for n, (ax, task) in enumerate(zip(axes, tasks, strict=False)):
            _panel(ax, found, one_task(gains[n], tops[n]))
            _level(ax, found, gains[n])
            _bar(figure, ax, task, tops[n])
            ax.set_title(task["name"])
        if len(tasks) > 1:
            _panel(axes[-1], found, all_tasks(gains, tops))
            axes[-1].set_title("all tasks")
            names = [task["name"] for task in tasks]
            _key(axes[-1], names)
        for ax in axes:
            ax.set_xlabel(found["plane"]["labels"][0], fontsize=8)
        axes[0].set_ylabel(found["plane"]["labels"][1], fontsize=8)


def _panel(ax: Any, found: Mapping[str, Any], colours: np.ndarray) -> None:
    from matplotlib.patheffects import withStroke

    x, y = np.array(found["x"]), np.array(found["y"])
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    ax.imshow(
        colours,
        origin="lower",
        extent=(x[0] - dx, x[-1] + dx, y[0] - dy, y[-1] + dy),
        aspect="equal",
        interpolation="nearest",
    )
    for name, (a, b) in found["marks"].items():
        minor = name.endswith("(projected)")
        ax.plot([a], [b], "o", ms=3 if minor else 5, mfc="white", mec="black", mew=0.9)
        if not minor:
            text = ax.annotate(name, (a, b), xytext=(5, 4), textcoords="offset points", fontsize=8)
            text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def _level(ax: Any, found: Mapping[str, Any], gains: np.ndarray) -> None:
    """The line along which points are as good as θ."""
    held = np.where(np.isfinite(gains), gains, np.nanmin(gains) if np.isfinite(gains).any() else 0)
    if held.min() < 0 < held.max():
        ax.contour(found["x"], found["y"], held, levels=[0.0], colors="#444444", linewidths=0.8)


def _bar(figure: Any, ax: Any, task: Mapping[str, Any], top: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("gain", [BELOW, "#ffffff", ABOVE])
    bar = figure.colorbar(
        ScalarMappable(Normalize(-top, top), colours), ax=ax, location="bottom", shrink=0.85,
        aspect=30, extend="min",
    )  # fmt: skip
    bar.ax.tick_params(labelsize=7)
    bar.ax.locator_params(nbins=5)
    bar.set_label(f"gain over θ in {task['metric']} (right is better)", fontsize=8)


def _key(ax: Any, names: Sequence[str]) -> None:
    """Which ink is which task's, and what two together look like."""
    from matplotlib.patches import Patch

    ones = np.eye(len(names))
    swatches = [(name, all_tasks(list(row[:, None]), [1.0] * len(names))[0]) for name, row in
                zip(names, ones, strict=True)]  # fmt: skip
    swatches.append(("all", all_tasks([np.ones(1)] * len(names), [1.0] * len(names))[0]))
    handles = [Patch(facecolor=colour, label=f"{name} better") for name, colour in swatches]
    handles.append(Patch(facecolor="white", edgecolor="#888888", label="none better"))
    legend = ax.legend(handles=handles, fontsize=7.5, ncols=2, loc="upper center", frameon=False,
                       bbox_to_anchor=(0.5, -0.2))  # fmt: skip
    legend.set_in_layout(False)  # it has the room of the others' colour bars
