"""What a finished run says: results.json, figures, report.md, report.html, from its files alone.

No model is seen here. Shapes: N experts, K kept, R random ones, B items.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from thicket_jax.reports import documents, figures, landscape_figure, landscape_page, sections
from thicket_jax.runs import digests
from thicket_jax.runs.files import write_json, write_text
from thicket_jax.runs.record import RunRecord
from thicket_jax.scoring.metrics import METRICS, Metric

Draw = Callable[[RunRecord, pathlib.Path], list[tuple[str, str]]]


def write(
    record: RunRecord,
    run_dir: str | pathlib.Path,
    results: Mapping[str, Any],
    draw: Draw | None = None,
    *,
    metric: Metric | None = None,
    landscapes_of: pathlib.Path | None = None,
) -> list[pathlib.Path]:
    """Writes results.json, figures/*.png, report.md and report.html; returns their paths.

    results.json comes first and has either its old or its new content, never half of it. The HTML
    holds its figures and refers to nothing outside.

    Args:
      record: the run.
      run_dir: its directory.
      results: what `build_results` returned.
      draw: the task's own figures: `draw(record, folder)` writes PNG files into `folder` and
        returns their (file name, caption).
      metric: a program's own metric, as in `build_results`; without it what needs it is left out.
      landscapes_of: the run's directory, where the report goes to another; default `run_dir`.
    """
    folder = pathlib.Path(run_dir)
    with digests.changing(folder, *digests.REPORT):
        return _write(record, folder, results, draw, metric, landscapes_of or folder)


def _write(
    record: RunRecord,
    folder: pathlib.Path,
    results: Mapping[str, Any],
    draw: Draw | None,
    metric: Metric | None,
    landscapes_of: pathlib.Path,
) -> list[pathlib.Path]:
    write_json(folder / "results.json", results)
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    known = _gradable(record, results, metric)
    shown = figures.draw(known, results, pictures)
    if draw is not None:
        shown += draw(record, pictures)
    landscapes = landscape_page.load_all(landscapes_of)
    drawn = [landscape_page.picture_name(found) for found in landscapes]
    for found, name in zip(landscapes, drawn, strict=True):
        landscape_figure.draw(found, pictures / name)
    blocks = sections.compose(known, results, shown, landscape_page.sections(landscapes))
    write_text(folder / "report.md", documents.to_markdown(blocks))
    write_text(folder / "report.html", documents.to_html(blocks, pictures))
    drawn = [*(name for name, _ in shown), *drawn]
    names = ["results.json", *(f"figures/{name}" for name in drawn), "report.md", "report.html"]
    return [folder / name for name in names]


def _gradable(record: RunRecord, results: Mapping[str, Any], metric: Metric | None) -> RunRecord:
    """Returns a record whose metric is known; answers that nothing here can grade are left out."""
    if metric is not None:
        return dataclasses.replace(record, grader=metric)
    if record.grader is not None or results["metric"] in METRICS:
        return record
    unknown = Metric(results["metric"], results["higher_is_better"], lambda answers, _: answers)
    return dataclasses.replace(record, answers=None, random_answers=None, grader=unknown)
