"""A landscape as a section of a report: an interactive picture in HTML, a PNG in Markdown.

The picture is one canvas and one script, with the data inside the page: no network.
"""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.reports.documents import Block, Heading, Interactive, Paragraph, Picture, Table
from thicket_jax.reports.landscape_figure import ABOVE, BELOW, FAILED, INKS, gains_of, limit
from thicket_jax.reports.numbers import short
from thicket_jax.runs import digests
from thicket_jax.runs.files import read_json

FOLDER, FILE = "landscapes", "landscape.json"


def load_all(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the finished landscapes of a run, by name; none that the run did not make.

    Raises:
      RunError: one is damaged.
    """
    wanted = ("name", "plane", "x", "y", "distance", "marks", "tasks")
    mend = "delete it, and thicket landscape makes it again from its log"
    paths = sorted(run_dir.glob(f"{FOLDER}/*/{FILE}"))
    paths = [x for x in paths if digests.is_entered(run_dir, x.relative_to(run_dir).as_posix())]
    return [read_json(path, wanted, mend) for path in paths]


def picture_name(found: Mapping[str, Any]) -> str:
    """Returns the file name of a landscape's PNG."""
    return f"landscape-{found['name']}.png"


def sections(landscapes: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Returns a section for each landscape; its PNG is expected among the report's figures."""
    blocks: list[Block] = []
    for found in landscapes:
        names = ", ".join(task["name"] for task in found["tasks"])
        blocks += [
            Heading(f"Landscape: {found['name']}"),
            Paragraph(_lead(found)),
            Interactive(_interactive(found), Picture(picture_name(found), _caption(names))),
        ]
        rows = [
            (task["name"], c["name"], short(c["score"]), short(c["logged"]))
            for task in found["tasks"]
            for c in task["checks"]
        ]
        if rows:
            head = ("task", "expert", "score in the plane", "logged score")
            blocks.append(Table(head, tuple(rows), words=2))
    return blocks


def _lead(found: Mapping[str, Any]) -> str:
    plane = found["plane"]
    G = len(found["x"]) * len(found["y"])
    said = {
        "random": "Two random directions through θ.",
        "experts": "The plane of θ and two experts.",
        "principal": f"The plane through θ that holds most of the best {len(plane['axes'][0])} "
        f"experts' steps: {100 * plane['share']:.0f} % of their squared length (of independent "
        f"steps in many dimensions any plane holds about {200 / len(plane['axes'][0]):.0f} %).",
    }[plane["kind"]]
    best = []
    for task in found["tasks"]:
        gains = gains_of(task)
        better = float((gains > 0).mean())
        best.append(f"{task['name']}: {better:.0%} of the points are better than θ")
    return f"{said} {G} points, each scored on the training items. {'; '.join(best)}."


def _caption(names: str) -> str:
    return (
        f"Scores on {names} over a plane through θ. White is θ's own score (in the still "
        "picture also a line). Colours saturate at the largest gain, or at the median change."
    )


def _interactive(found: Mapping[str, Any]) -> str:
    """The canvas, its controls, the data and the script."""
    gains = [gains_of(task) for task in found["tasks"]]
    data = {
        "x": found["x"],
        "y": found["y"],
        "distance": found["distance"],
        "labels": found["plane"]["labels"],
        "marks": found["marks"],
        "colours": {"inks": INKS, "failed": FAILED, "below": BELOW, "above": ABOVE},
        "tasks": [
            {
                "name": task["name"],
                "metric": task["metric"],
                "values": task["values"],
                "gains": task["gains"],
                "marks": task["marks"],
                "limit": limit(values),
            }
            for task, values in zip(found["tasks"], gains, strict=True)
        ],
    }
    # Text of a script element ends at the first "<", whatever the JSON says.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    script = (pathlib.Path(__file__).parent / "landscape.js").read_text(encoding="utf-8")
    views = [(str(n), task["name"]) for n, task in enumerate(found["tasks"])]
    if len(views) > 1:
        views = [("all", "all tasks"), *views]
    options = "".join(f'<option value="{v}">{html.escape(name)}</option>' for v, name in views)
    hidden = " hidden" if len(views) < 2 else ""
    return (
        '<div class="landscape">\n'
        f'<p class="landscape-view"{hidden}><label>Shown: <select>{options}</select></label></p>\n'
        '<canvas tabindex="0" role="img" aria-label="Scores over a plane; arrow keys move">'
        "</canvas>\n"
        '<p class="landscape-key"></p>\n'
        '<p class="landscape-readout" aria-live="polite">'
        "Point at the picture, or move with the arrow keys.</p>\n"
        f'<script type="application/json">{text}</script>\n<script>\n{script}</script>\n</div>'
    )
