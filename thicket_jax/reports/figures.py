"""The figures that every run has, drawn from its record and results. Matplotlib lives here.

Colours are Okabe and Ito's, told apart by colour-blind readers, and mean the same everywhere.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thicket_jax.reports.numbers import experts_label, measured, rule_label, short, sigma_label
from thicket_jax.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "base": "#0072b2",
    "best": "#e69f00",
    "ensemble": "#d55e00",
    "random": "#b5b5b5",
    "better": "#009e73",
    "truth": "#000000",
}
RULE_COLOURS = ("#d55e00", "#cc79a7", "#56b4e9", "#009e73")
DPI = 150
OWN = ("comparison.png", "sweep.png", "scores.png", "transfer.png")
MOST_BARS = 10
MOST_ROWS = 8  # sigmas in one histogram figure; more are unreadable
FENCE = 4.0  # experts beyond this many interquartile ranges are counted, not drawn


def axis_label(results: Mapping[str, Any], items: str) -> str:
    """Returns the metric with its direction, such as `test mse (lower is better)`."""
    direction = "higher" if results["higher_is_better"] else "lower"
    return f"{items} {results['metric']} ({direction} is better)"


@contextlib.contextmanager
def canvas(width: float, height: float, path: pathlib.Path) -> Iterator["Figure"]:
    """Yields a figure in the house style, `width` × `height` inches, and saves it to `path`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.axisbelow": True,
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "grid.color": "#e4e4e4",
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, dpi=DPI)


def draw(
    record: RunRecord, results: Mapping[str, Any], folder: pathlib.Path
) -> list[tuple[str, str]]:
    """Draws the figures that this run has the numbers for; returns (file name, caption) of each.

    Args:
      record: the run.
      results: what `results.build_results` returned.
      folder: where the PNG files go; figures of ours that an earlier report left are removed.
    """
    for name in OWN:
        (folder / name).unlink(missing_ok=True)
    shown = []
    if results["ensemble"]:
        shown.append(_comparison(results, folder / "comparison.png"))
        if len({row["k"] for row in results["ensemble"]}) > 1:
            shown.append(_sweep(results, folder / "sweep.png"))
    shown.append(_scores(record, results, folder / "scores.png"))
    if len(record.kept_tests()) > 2:
        shown.append(_transfer(record, results, folder / "transfer.png"))
    return shown


def _comparison(results: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    base, best = results["base"], results["best"]
    rows, caption = _with_colours(results["ensemble"]), ""
    if len(rows) > MOST_BARS:
        largest = max(row["k"] for row, _ in rows)
        rows = [(row, colour) for row, colour in rows if row["k"] == largest]
        caption = " Only the largest K is drawn; the next figure has the others."
    bars = [
        ("base", base["test"], base["test_stderr"], COLOURS["base"]),
        ("best single expert", best["test"], best["test_stderr"], COLOURS["best"]),
    ]
    bars += [
        (
            f"{experts_label(row['k'])}, {rule_label(row['combine'])}",
            row["test"],
            row["stderr"],
            colour,
        )
        for row, colour in rows
    ]
    finite = [value + (error or 0) for _, value, error, _ in bars if value is not None]
    reach = max(finite, default=1.0) or 1.0
    with canvas(6.6, 0.75 + 0.36 * len(bars), path) as figure:
        axes = figure.subplots()
        for y, (_, value, error, colour) in enumerate(bars):
            if value is None:
                axes.text(0, y, " not finite", va="center", color="#444444")
                continue
            axes.barh(y, value, 0.66, color=colour, xerr=error, ecolor="#222222", capsize=2.5)
            text = short(value) if error is None else " ± ".join(measured(value, error))
            axes.text(value + (error or 0) + 0.012 * reach, y, text, va="center", fontsize=8.5)
        axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, 1.22 * reach)
        axes.tick_params(axis="y", length=0, labelcolor="#111111")
        axes.grid(axis="x")
        axes.set_xlabel(axis_label(results, "test"))
    return path.name, (
        "Base, best single expert and ensembles on the same test items. The thin lines are one "
        "standard error of each mean; the table has the differences, paired over the items."
        + caption
    )


def _sweep(results: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    base, best = results["base"]["test"], results["best"]["test"]
    rules = list(dict.fromkeys(row["combine"] for row in results["ensemble"]))
    ks = sorted({row["k"] for row in results["ensemble"]})
    with canvas(6.6, 3.2, path) as figure:
        axes = figure.subplots()
        if ks[-1] >= 8 * ks[0]:
            axes.set_xscale("log")
        for i, rule in enumerate(rules):
            rows = [row for row in results["ensemble"] if row["combine"] == rule]
            rows = sorted((r for r in rows if r["test"] is not None), key=lambda r: r["k"])
            if not rows:
                continue
            # Rules side by side, so that their intervals do not hide one another.
            spread = 1 + 0.035 * (i - (len(rules) - 1) / 2)
            x, y = [row["k"] * spread for row in rows], [row["test"] for row in rows]
            bars = None
            if base is not None and all(row["delta_ci95"][0] is not None for row in rows):
                ends = base + np.array([row["delta_ci95"] for row in rows]).T
                bars = [y - ends[0], ends[1] - y]
            colour = RULE_COLOURS[i % len(RULE_COLOURS)]
            axes.errorbar(
                x, y, bars, marker="o", ms=4, lw=1.4, capsize=3, color=colour,
                label=f"ensemble, {rule_label(rule)}",
            )  # fmt: skip
        if base is not None:
            axes.axhline(base, color=COLOURS["base"], lw=1.4, label="base")
        if best is not None:
            axes.axhline(best, color=COLOURS["best"], lw=1.4, ls="--", label="best single expert")
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("experts in the ensemble, K")
        axes.set_ylabel(axis_label(results, "test"))
        axes.grid(axis="y")
        figure.legend(loc="outside upper center", ncols=min(4, 2 + len(rules)), fontsize=8.5)
    return path.name, (
        "Ensembles of the best K experts. The bars are the 95 % interval of the paired difference "
        "to the base, put at the base's value: a bar that does not reach the base's line is a "
        "difference."
    )


def _scores(record: RunRecord, results: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    unit, base = record.metric.from_score, results["base"]["train"]
    alive, rounds = ~record.failed, record.selection is not None
    scores, sigmas = record.scores, record.sigmas
    better = scores >= (record.base_score if base is not None else -math.inf)
    if rounds:
        # On equal items with the base: the difference there, from the base's score on all.
        scores, better = record.base_score + record.gains, record.gains >= 0
    levels = np.unique(sigmas)
    if len(levels) > MOST_ROWS:
        levels = levels[np.linspace(0, len(levels) - 1, MOST_ROWS).round().astype(int)]
    values = np.array([unit(score) for score in scores])
    edges, log = _bins(values[alive], base, record)
    below, above = values[alive] < edges[0], values[alive] > edges[-1]
    rows = {row["sigma"]: row for row in results["density"]}
    with canvas(6.6, 0.7 + 1.15 * len(levels), path) as figure:
        for axes, sigma in zip(
            figure.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0], levels, strict=True
        ):
            here = alive & (sigmas == sigma)
            axes.hist(
                [values[here & better], values[here & ~better]],
                edges,
                stacked=True,
                color=[COLOURS["better"], COLOURS["random"]],
            )
            if base is not None:
                axes.axvline(base, color=COLOURS["base"], lw=1.6, ls="--")
            row = rows[float(str(sigma))]
            axes.set_title(
                f"σ = {sigma_label(row['sigma'])}: {100 * row['fraction_ge']:.1f} % of "
                f"{row['n']:,} experts at least as good as the base",
                loc="left",
            )
            axes.set_ylabel("experts")
            axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
            if log:
                axes.set_xscale("log")
        axes.set_xlabel(axis_label(results, "train"))
    caption = (
        "Scores of all experts on the train items, by sigma. Green: at least as good as the base "
        "(dashed line)."
    )
    if rounds:
        caption = (
            "All experts by sigma, each compared with the base on the items that it saw, and drawn "
            "at that difference from the base's score on all train items (dashed line). Green: at "
            "least as good as the base."
        )
    if len(levels) < len(rows):
        caption += f" {len(levels)} of {len(rows)} sigmas are drawn."
    return path.name, caption + _clipped(values[alive], below, above, edges)


def _clipped(values: np.ndarray, below: np.ndarray, above: np.ndarray, edges: np.ndarray) -> str:
    said = ""
    if above.any():
        said += (
            f" Not drawn: {above.sum():,} of {len(values):,} above {short(edges[-1])}, "
            f"up to {short(values.max())}."
        )
    if below.any():
        said += (
            f" Not drawn: {below.sum():,} of {len(values):,} below {short(edges[0])}, "
            f"down to {short(values.min())}."
        )
    return said


def _bins(values: np.ndarray, base: float | None, record: RunRecord) -> tuple[np.ndarray, bool]:
    """Returns the bin edges, which always hold the base, and whether the axis is logarithmic."""
    shown = values if base is None else np.append(values, base)
    log = bool(shown.min() > 0 and np.quantile(values, 0.95) > 10 * np.quantile(values, 0.05))
    scaled, marked = (np.log10(values), np.log10(shown)) if log else (values, shown)
    quarter, half, three = np.quantile(scaled, [0.25, 0.5, 0.75])
    reach = FENCE * (three - quarter) or np.abs(scaled - half).max()
    inside = scaled[(scaled >= quarter - reach) & (scaled <= three + reach)]
    low, high = min(inside.min(), marked[-1]), max(inside.max(), marked[-1])
    if record.metric.name == "accuracy" and record.base_train is not None:
        # Accuracies come in steps of 1/B: bins of other widths would comb.
        step = 1 / len(record.base_train)
        width = step * max(1, round((high - low) / 40 / step))
        return np.arange(low - step / 2, high + width, width), False
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        low, high = low - max(abs(low) * 0.05, 1e-12), high + max(abs(high) * 0.05, 1e-12)
    # The base is an edge, so that no bar holds both better and worse experts.
    width, edge = (high - low) / 45, marked[-1]
    steps = np.arange(math.floor((low - edge) / width), math.ceil((high - edge) / width) + 1)
    edges = edge + width * steps
    return (10.0**edges if log else edges), log


def _transfer(record: RunRecord, results: Mapping[str, Any], path: pathlib.Path) -> tuple[str, str]:
    test = record.kept_tests()
    order = np.argsort(record.ranks)[: len(test)]
    train = np.array([record.metric.from_score(score) for score in record.scores[order]])
    keep = np.isfinite(test)
    base = (results["base"]["train"], results["base"]["test"])
    with canvas(6.6, 3.4, path) as figure:
        axes = figure.subplots()
        axes.plot(
            train[keep][1:], test[keep][1:], "o", ms=4, color=COLOURS["ensemble"], alpha=0.65,
            label=f"experts of rank 2 to {len(order)}",
        )  # fmt: skip
        axes.plot(train[:1], test[:1], "o", ms=7, color=COLOURS["best"], label="best on train")
        if None not in base:
            axes.plot(*base, "X", ms=8, color=COLOURS["base"], label="base")
        if test[keep].size and test[keep].min() > 0 and test[keep].max() > 20 * test[keep].min():
            axes.set_yscale("log")
        axes.set_xlabel(axis_label(results, "train"))
        axes.set_ylabel(axis_label(results, "test"))
        axes.grid()
        figure.legend(loc="outside upper center", ncols=3, fontsize=8.5)
    return path.name, (
        f"The {len(order)} kept experts on the train items, which chose them, and on the test "
        "items, which did not."
    )


def _with_colours(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    rules = list(dict.fromkeys(row["combine"] for row in rows))
    return [(row, RULE_COLOURS[rules.index(row["combine"]) % len(RULE_COLOURS)]) for row in rows]
