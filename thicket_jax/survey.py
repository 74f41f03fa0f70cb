"""One population on several tasks, from their run directories: density, discordance, reliability.

No model is seen here. Shapes: N experts, M tasks. Scores are higher-is-better.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax import discordance, reliability, report_html, specialists
from thicket_jax.analysis import density_curve
from thicket_jax.errors import ArgumentError, ThicketError
from thicket_jax.figures import COLOURS, RULE_COLOURS, canvas
from thicket_jax.report import plain_json
from thicket_jax.report_html import Block, Bullets, Heading, Paragraph, Picture, Table, Title
from thicket_jax.report_numbers import short, sigma_label
from thicket_jax.run_record import RunRecord
from thicket_jax.runlog import write_json

_POINTS = 41  # margins of a drawn curve, from 0 to the best expert's gain
_LINES = (*RULE_COLOURS, COLOURS["base"], COLOURS["best"], COLOURS["truth"])
_FEWEST = 8  # experts for which groups are looked for


def measure(records: Mapping[str, RunRecord], margins: Sequence[float] = (0.0,)) -> dict[str, Any]:
    """Returns what the logs of one population on M tasks say of the thicket, as a JSON object.

    Args:
      records: name → run; equal experts, base parameters and noise.
      margins: m of the tables, in the unit of the scores.

    Returns:
      `tasks`, `num`, `sigma`; for each task `density` (rows of `analysis.density_curve` at the
      margins), `curve` (the same from 0 to the best expert's gain), `reliability` (rows of
      `reliability.of_record` by ranks, None where no items were logged), `base` and `best`; of two
      tasks or more `discordance` (rows of `discordance.of_records`, each with `without_noise`), and
      `specialists`: shares and directions of the principal components, sizes and centres of the
      clusters, None where there are too few experts.

    Raises:
      ArgumentError: no runs, or runs of other experts or other base parameters.
    """
    if not records:
        raise ArgumentError("records is empty; give the runs of one population, one a task")
    runs = list(records.values())
    scores, failed, sigmas = discordance.score_matrix(runs)
    _check_base(records)
    found: dict[str, Any] = {
        "tasks": {name: _task(record, margins) for name, record in records.items()},
        "num": len(scores),
        "sigma": [float(str(s)) for s in np.unique(sigmas)],
        "margins": [float(m) for m in margins],
    }
    if len(runs) < 2:
        return found
    rows = discordance.of_records(runs)
    for row in rows:
        row["without_noise"] = _without_noise(row, found["tasks"])
    return {**found, "discordance": rows, "specialists": _specialists(scores, failed)}


def _check_base(records: Mapping[str, RunRecord]) -> None:
    prints = {
        name: record.config.get("fingerprints", {}).get("params")
        for name, record in records.items()
    }
    if len(set(prints.values())) > 1:
        first, *others = prints
        other = next(name for name in others if prints[name] != prints[first])
        raise ArgumentError(
            f"{other} has other base parameters than {first}; experts of different models cannot "
            "be compared"
        )


def _task(record: RunRecord, margins: Sequence[float]) -> dict[str, Any]:
    scores, failed, base = record.scores, record.failed, record.base_score
    best = float(scores[~failed].max()) if not failed.all() else math.nan
    gain = best - base if math.isfinite(best - base) and best > base else 0.0
    steps = [float(m) for m in np.linspace(0, gain, _POINTS if gain else 1)]
    try:
        rows = reliability.of_record(record, ranks=True)
    except ArgumentError:
        rows = None
    return {
        "task": record.config["task"],
        "metric": record.config["metric"],
        "base": base,
        "best": best,
        "failed": int(failed.sum()),
        "density": density_curve(scores, failed, record.sigmas, base, margins),
        "curve": density_curve(scores, failed, record.sigmas, base, steps),
        "reliability": rows,
    }


def _without_noise(row: Mapping[str, Any], tasks: Mapping[str, Any]) -> float | None:
    """D of the row's sigma, corrected for item noise; None where it is not defined."""
    values = []
    for task in tasks.values():
        rows = task["reliability"] or []
        values += [r["value"] for r in rows if r["sigma"] == row["sigma"]]
    if len(values) != len(tasks) or not all(v is not None and v > 0 for v in values):
        return None
    try:
        value = float(discordance.without_noise(np.asarray(row["correlation"]), values))
    except ThicketError:
        return None
    return value if math.isfinite(value) else None


def _specialists(scores: np.ndarray, failed: np.ndarray) -> dict[str, Any] | None:
    percentiles, experts = discordance.percentile_matrix(scores, failed)
    if len(experts) < _FEWEST or len(np.unique(percentiles, axis=0)) < 3:
        return None
    parts, groups = specialists.principal_components(percentiles), specialists.clusters(percentiles)
    return {
        "shares": parts.shares.tolist(),
        "directions": parts.directions.tolist(),
        "coordinates": parts.coordinates[:, :2].tolist(),
        "experts": experts.tolist(),
        "clusters": {
            **{k: v.tolist() if hasattr(v, "tolist") else v
               for k, v in dataclasses.asdict(groups).items()},
        },
    }  # fmt: skip


def write(
    records: Mapping[str, RunRecord], folder: pathlib.Path, margins: Sequence[float] = (0.0,)
) -> dict[str, Any]:
    """Writes density.json, figures/*.png, report.md and report.html; returns `measure`'s object."""
    found = measure(records, margins)
    write_json(folder / "density.json", plain_json(found))
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    shown = [_draw_curves(found, pictures / "density.png")]
    if "discordance" in found:
        shown.append(_draw_correlation(found, pictures / "discordance.png"))
        if found["specialists"] is not None and len(found["specialists"]["shares"]) > 1:
            shown.append(_draw_specialists(found, pictures / "specialists.png"))
    blocks = _compose(found, shown)
    (folder / "report.md").write_text(report_html.to_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(report_html.to_html(blocks, pictures), encoding="utf-8")
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the result as lines of plain text."""
    width = max(len(name) for name in found["tasks"])
    out = [f"{found['num']} experts on {len(found['tasks'])} task(s)"]
    for name, task in found["tasks"].items():
        for row in task["density"]:
            low, high = row["interval_ge"]
            sigma, margin = sigma_label(row["sigma"]), short(row["margin"])
            share = f"{row['fraction_ge']:6.1%} [{low:.1%}, {high:.1%}], > {row['fraction_gt']:.1%}"
            out.append(f"  {name:{width}}  sigma {sigma:8} m = {margin}  density {share}")
    for row in found.get("discordance", []):
        low, high = (short(x) for x in row["interval"])
        clean = (
            ""
            if row["without_noise"] is None
            else (f", without item noise {short(row['without_noise'])}")
        )
        out.append(
            f"  discordance at sigma {sigma_label(row['sigma'])}: {short(row['discordance'])} "
            f"[{low}, {high}]{clean}"
        )
    return out


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
                x = [row["margin"] for row in rows]
                colour = _LINES[n % len(_LINES)]
                ax.plot(x, [row["fraction_ge"] for row in rows], color=colour,
                        marker="o" if len(x) == 1 else "",
                        label=f"σ = {sigma_label(sigma)}")  # fmt: skip
                low, high = zip(*(row["interval_ge"] for row in rows), strict=True)
                ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.set_title(name)
            ax.set_ylim(0, 1)
            ax.grid(True)
        axes[0].legend(fontsize=7)
        figure.supxlabel("margin m over the base's score", fontsize=9)
        figure.supylabel("solution density δ(m)", fontsize=9)
    return path.name, (
        "Share of the experts whose score is at least the base's plus m; shaded: Wilson intervals "
        "at 95 %."
    )


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
            ax.scatter(here[:, 0], here[:, 1], s=7, color=_LINES[group % len(_LINES)],
                       label=f"group {group + 1} ({len(here)})", linewidths=0)  # fmt: skip
        reach = 0.9 * float(np.abs(points).max())
        for name, x, y in zip(names, *parts["directions"][:2], strict=True):
            ax.annotate(name, (0, 0), (x * reach, y * reach), fontsize=7,
                        arrowprops={"arrowstyle": "<-", "color": "#444444"})  # fmt: skip
        ax.set_xlabel(f"first component, {parts['shares'][0]:.0%} of the variance")
        ax.set_ylabel(f"second component, {parts['shares'][1]:.0%}")
        ax.legend(fontsize=7)
    return path.name, (
        "Experts by their percentile ranks on all tasks, along the two directions in which they "
        "differ most; arrows: where a task's good experts lie. Mean silhouette of the groups "
        f"{parts['clusters']['silhouette']:.2f} (near 0: a cut cloud, no groups)."
    )


def _compose(found: Mapping[str, Any], shown: Sequence[tuple[str, str]]) -> list[Block]:
    names, pictures = list(found["tasks"]), dict(shown)
    blocks: list[Block] = [
        Title(
            "The thicket: density and discordance", f"{found['num']} experts, {', '.join(names)}"
        ),
        Paragraph(_lead(found), lead=True),
        Heading("Solution density"),
        Picture("density.png", pictures["density.png"]),
        _density_table(found),
        Paragraph(
            "≥ counts an expert that changes nothing as a solution at m = 0, > does not. Intervals "
            "are Wilson's at 95 %, for one margin at a time."
        ),
    ]
    if "discordance" in found:
        blocks += [
            Heading("Discordance"),
            Picture("discordance.png", pictures["discordance.png"]),
            _discordance_table(found),
            Paragraph(
                "D = 0: the same experts are good at every task; D = 1: unrelated specialists; at "
                f"most {len(names) / (len(names) - 1):.2f} here. Item noise alone raises D; the "
                "corrected value divides each correlation by what the scores' own reliability lets "
                "through."
            ),
        ]
        if "specialists.png" in pictures:
            blocks.append(Picture("specialists.png", pictures["specialists.png"]))
    blocks += [Heading("How much of the ranking is item noise"), *_reliability(found)]
    blocks += [
        Heading("The runs"),
        Bullets(tuple(f"{name}: {name}/report.html, with all scores in {name}/" for name in names)),
    ]
    return blocks


def _lead(found: Mapping[str, Any]) -> str:
    at_zero = {}
    for name, task in found["tasks"].items():
        rows = [row for row in task["curve"] if row["margin"] == 0]
        at_zero[name] = max(rows, key=lambda row: row["fraction_gt"])
    parts = [
        f"{name}: {row['fraction_gt']:.1%} of the experts at σ = {sigma_label(row['sigma'])} "
        "beat the base"
        for name, row in at_zero.items()
    ]
    said = "; ".join(parts) + "."
    for row in found.get("discordance", []):
        if row["discordance"] is not None and math.isfinite(row["discordance"]):
            said += f" Discordance at σ = {sigma_label(row['sigma'])}: {row['discordance']:.2f}."
    return said


def _density_table(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, task in found["tasks"].items():
        for row in task["density"]:
            low, high = row["interval_ge"]
            rows.append(
                (
                    name,
                    sigma_label(row["sigma"]),
                    short(row["margin"]),
                    f"{row['fraction_ge']:.1%}",
                    f"{low:.1%} to {high:.1%}",
                    f"{row['fraction_gt']:.1%}",
                    str(row["n"]),
                )
            )
    head = ("task", "sigma", "m", "δ(m), ≥", "95 %", "δ(m), >", "experts")
    return Table(head, tuple(rows), words=2)


def _discordance_table(found: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            sigma_label(row["sigma"]),
            short(row["discordance"]),
            f"{short(row['interval'][0])} to {short(row['interval'][1])}",
            "–" if row["without_noise"] is None else short(row["without_noise"]),
            str(row["n"]),
        )
        for row in found["discordance"]
    )
    return Table(("sigma", "D", "95 %", "without item noise", "experts"), rows)


def _reliability(found: Mapping[str, Any]) -> list[Block]:
    rows = []
    for name, task in found["tasks"].items():
        for row in task["reliability"] or []:
            label = "all" if row["sigma"] is None else sigma_label(row["sigma"])
            low, high = row["interval"]
            rows.append(
                (name, label, short(row["value"]), f"{short(low)} to {short(high)}",
                 short(row["noise_share"]), str(row["items"]))
            )  # fmt: skip
    if not rows:
        return [Paragraph("No run logged its items.")]
    head = ("task", "sigma", "reliability", "95 %", "share of noise", "items")
    return [
        Table(head, tuple(rows), words=2),
        Paragraph(
            "The expected correlation of this score with one of as many other items: split halves, "
            "corrected by Spearman and Brown; of ranks."
        ),
    ]
