"""A survey for people: density.json, figures, one page, and lines for a terminal."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from thicket_jax.reports import documents, survey_figures
from thicket_jax.reports.documents import Block, Bullets, Heading, Paragraph, Picture, Table, Title
from thicket_jax.reports.numbers import short, sigma_label
from thicket_jax.runs.files import write_json


def write(found: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes density.json, figures, report.md and report.html of what `survey.measure` found."""
    write_json(folder / "density.json", found)
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    blocks = _compose(found, survey_figures.draw(found, pictures))
    (folder / "report.md").write_text(documents.to_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(documents.to_html(blocks, pictures), encoding="utf-8")


def lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the result as lines of plain text."""
    width = max(len(name) for name in found["tasks"])
    out = [f"{found['num']} experts on {len(found['tasks'])} task(s)"]
    for name, task in found["tasks"].items():
        for row in task["density"]:
            low, high = row["fraction_ge_interval"]
            sigma, margin = sigma_label(row["sigma"]), f"{row['margin']:g}"
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


def _compose(found: Mapping[str, Any], pictures: Mapping[str, str]) -> list[Block]:
    names = list(found["tasks"])
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
            *_without_order(found),
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
    blocks += [Heading("What selecting does"), *_selection(found)]
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
            low, high = row["fraction_ge_interval"]
            rows.append(
                (
                    name,
                    sigma_label(row["sigma"]),
                    f"{row['margin']:g}",
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
            _interval(row["interval"]),
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
            rows.append(
                (name, label, short(row["value"]), _interval(row["interval"]),
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


def _without_order(found: Mapping[str, Any]) -> list[Block]:
    names = list(found["tasks"])
    said = [
        f"All experts of σ = {sigma_label(row['sigma'])} score alike on "
        f"{', '.join(names[m] for m in row['constant'])}, which is left out."
        for row in found["discordance"]
        if row["constant"]
    ]
    return [Paragraph(" ".join(said))] if said else []


def _selection(found: Mapping[str, Any]) -> list[Block]:
    """Does it carry over, what is lost, what would fewer experts give, and what more."""
    known = {n: t["selection"] for n, t in found["tasks"].items() if t["selection"] is not None}
    if not known:
        return [Paragraph("No run logged its items.")]
    carried = [_carried(name, task) for name, task in known.items()]
    lost = [_lost(name, row) for name, task in known.items() for row in task["regret"]]
    best = [_best(name, row) for name, task in known.items() for row in task["best_of"]]
    return [
        Table(
            ("task", "K", "halves", "95 %", "train, test", "95 %", "K over random", "p"),
            tuple(carried),
        ),
        Paragraph(
            "Halves: rank correlation of all experts' scores, of all sigmas, on two halves of the "
            "train items. "
            "Train, test: of the kept experts' train scores and test results, a narrow slice. K "
            "over random: the best K on one half, judged on the other, minus random experts of the "
            "same sigmas; p by permutation within sigmas."
        ),
        Table(("task", "K", "items", "K best there", "K selected", "regret", "lost"), tuple(lost)),
        Paragraph(
            "Selecting K experts on so many items, judged on the rest: regret is what the K best "
            "there have over the selected; lost, its share of what could be gained over the base "
            "(above 100 %: worse than the base)."
        ),
        Table(("task", "K", "n", "gain of the best K of n", "95 %"), tuple(best)),
        Paragraph(
            "Over the base, on items that did not select, if n experts had been sampled instead of "
            "all. An interval exists where the log says enough of n, at most a twentieth of N·K."
        ),
        Bullets(tuple(_more(name, task, found) for name, task in known.items())),
    ]


def _interval(interval: Any) -> str:
    low, high = interval
    return f"{short(low)} to {short(high)}" if math.isfinite(low) or math.isfinite(high) else "–"


def _carried(name: str, task: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [name, str(task["k"])]
    for found in (task["held_out"], task["test"]):
        known = found is not None and math.isfinite(found["value"])
        if not known:
            cells += ["–", "–"]
            continue
        shown = (found["value"], *found["interval"])  # correlations: two digits are enough
        value, low, high = (f"{x:.2f}".replace("-", "−") for x in shown)
        cells += [value, f"{low} to {high}"]
    control = task["control"]
    if control is None:
        return (*cells, "–", "–")
    return (*cells, short(control["difference"]), short(control["p_value"]))


def _lost(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = f"{row['lost']:,.0%}" if math.isfinite(row["lost"]) else "–"
    values = [short(row[x]) for x in ("attainable", "achieved", "regret")]
    return (name, str(row["k"]), str(row["items"]), *values, shares)


def _best(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    shift = row["expected"] - row["gain"]
    interval = [x - shift for x in row["interval"]]
    return (name, str(row["k"]), str(row["n"]), short(row["gain"]), _interval(interval))


def _more(name: str, task: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    said = f"{name}: no number of experts of this log is expected to beat the base. "
    if task["needed"] is not None:
        said = (
            f"{name}: half of what the best {task['k']} of all {found['num']} gain on the train "
            f"items takes {task['needed']} experts. "
        )
    tail = task["tail"]
    if "why" in tail:
        return said + f"No tail is fitted: {tail['why']}."
    base = found["tasks"][name]["base"]
    now, beyond = (short(row["expected"] - base) for row in tail["best"])
    low, high = (short(x - base) for x in tail["best"][1]["interval"])
    return said + (
        f"The tail of the scores has the shape ξ = {short(tail['shape'])} "
        f"({_interval(tail['shape_interval'])}); if it holds, the best of {tail['best'][1]['n']:,} "
        f"would gain {beyond} ({low} to {high}) on these items, that of {tail['best'][0]['n']:,} "
        f"{now}."
    )
