"""A survey for people: density.json, figures, one page, and lines for a terminal."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from thicket_jax import report_html, survey_figures
from thicket_jax.report import plain_json
from thicket_jax.report_html import Block, Bullets, Heading, Paragraph, Picture, Table, Title
from thicket_jax.report_numbers import short, sigma_label
from thicket_jax.runlog import write_json


def write(found: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes density.json, figures, report.md and report.html of what `survey.measure` found."""
    write_json(folder / "density.json", plain_json(found))
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    blocks = _compose(found, survey_figures.draw(found, pictures))
    (folder / "report.md").write_text(report_html.to_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(report_html.to_html(blocks, pictures), encoding="utf-8")


def lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the result as lines of plain text."""
    width = max(len(name) for name in found["tasks"])
    out = [f"{found['num']} experts on {len(found['tasks'])} task(s)"]
    for name, task in found["tasks"].items():
        for row in task["density"]:
            low, high = row["interval_ge"]
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
