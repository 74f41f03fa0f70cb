"""The table and the figure of the experiment, from its records alone."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from experiments.signals.verdict import claims_of, ensemble_error, geometric_mean
from thicket_jax.reports.figures import COLOURS, canvas

PEER = pathlib.Path(__file__).resolve().parent / "peer.json"
_KINDS = ("base", "best", "ensemble")
_GROUPS = {
    "needle": "no pretraining",
    "thicket": "pretrained on the mixture",
    "plateau": "on the target's own family",
    "": "on another family",
}


def _name(pair: str) -> str:
    pretrain, _, target = pair.partition(":")
    return f"{pretrain} → {target}"


def _of(run: Mapping[str, Any], kind: str) -> float:
    return ensemble_error(run) if kind == "ensemble" else float(run[kind]["test"])


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the tables and the verdicts; draws overview.png into the folder."""
    peer = json.loads(PEER.read_text())
    draw(table["runs"], table["pairs"], peer, folder / "overview.png")
    lines = [f"{row['claim']}: {row['verdict']}" for row in table["verdicts"]]
    return Shown({"table": tables(table, peer)}, lines, ["overview.png"])


def tables(table: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """Returns the verdicts, the table of pairs and the times as Markdown.

    Args:
      table: the experiment's.
      peer: the official program's numbers.
    """
    runs, settings = table["runs"], table["settings"]
    of_claims = [
        [f"**{v['claim']}**: {v['text']}", v["verdict"], ", ".join(_exceptions(v)) or "-"]
        for v in table["verdicts"]
    ]
    of_pairs = []
    for row in table["pairs"]:
        theirs = peer["pairs"].get(row["pair"])
        of_pairs.append(
            [
                _name(row["pair"]),
                *(number(row[kind]) for kind in _KINDS),
                number(row["ratio"]),
                number(row["share"]),
                number(row["share_gt"]),
                number(row["gain"]),
                *_peer_cells(theirs, peer["decimals"]),
                number(row["seconds"]),
            ]
        )
    seeds = sorted({run["seed"] for run in runs})
    places = sorted({machine.sentence(run["provenance"]) for run in runs})
    return "\n\n".join(
        [
            markdown_table(["claim", "verdict", "does not hold for"], of_claims, left=3),
            f"N = {settings['num']}, K = {settings['k']}, {settings['train_items']} training and "
            f"{settings['test_items']} test sequences, seeds {', '.join(map(str, seeds))}. Errors "
            "are test mean squared errors of the roll-out, geometric means over the seeds; ratio = "
            "ensemble / base; good = share of the N experts with at most half of the base's "
            "training error; better = share with a lower one; gain = (base − ensemble) / variance "
            "of the target; official = base, best single, ensemble and ratio of the official "
            "program; s = seconds of a run, all of it.",
            markdown_table(
                [
                    *("pretrained → target", *_KINDS, "ratio", "good", "better", "gain"),
                    *(f"official {kind}" for kind in _KINDS),
                    *("official ratio", "s"),
                ],
                of_pairs,
            ),
            _times(runs),
            *places,
        ]
    )


def _exceptions(verdict: Mapping[str, Any]) -> list[str]:
    return [_name(pair) for pair, held in verdict["pairs"].items() if not held]


def _peer_cells(theirs: Mapping[str, float] | None, decimals: int) -> list[str]:
    if theirs is None:
        return ["-"] * 4
    ratio = number(theirs["ensemble"] / theirs["base"], 2)
    if not theirs["ensemble"]:  # rounded to zero: only a bound is known
        ratio = "< " + number(0.5 * 10**-decimals / theirs["base"], 1)
    return [*(f"{theirs[kind]:.{decimals}f}" for kind in _KINDS), ratio]


def _times(runs: Sequence[Mapping[str, Any]]) -> str:
    """The mean seconds of each stage, over runs of trained and of untrained bases."""
    stages = ("setup", "pretrain", "compile", "score", "ensemble", "total")
    rows = []
    for label, wanted in (("trained base", True), ("untrained base", False)):
        own = [run["seconds"] for run in runs if (run["seconds"]["pretrain"] > 0) == wanted]
        if own:
            means = [number(sum(s[stage] for s in own) / len(own)) for stage in stages]
            rows.append([f"{label}, {len(own)} runs", *means])
    head = ["mean seconds of a run", "setup (with pretraining)", *stages[1:]]
    return markdown_table(head, rows)


def draw(
    runs: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    peer: Mapping[str, Any],
    path: pathlib.Path,
) -> None:
    """Draws base, best and ensemble of every pair on a log axis, seeds as points."""
    order = list(_GROUPS)
    pairs = sorted((row["pair"] for row in rows), key=lambda pair: order.index(_group(pair)))
    with canvas(10.5, 0.34 * len(pairs) + 1.7, path) as figure:
        axes = figure.add_subplot()
        for place, pair in enumerate(pairs):
            own = [run for run in runs if run["pair"] == pair]
            for shift, kind in zip((-0.24, 0.0, 0.24), _KINDS, strict=True):
                values = [_of(run, kind) for run in own]
                y = place + shift
                first = place == 0
                axes.plot(
                    values,
                    [y] * len(values),
                    "o",
                    ms=4,
                    alpha=0.75,
                    mew=0,
                    color=COLOURS[kind],
                    label=f"{kind}, one seed" if first else None,
                )
                middle = geometric_mean(values)
                axes.plot([middle] * 2, [y - 0.13, y + 0.13], color=COLOURS[kind], lw=2.2)
                theirs = peer["pairs"].get(pair, {}).get(kind)
                if theirs:
                    axes.plot([theirs], [y], "D", ms=4, mfc="none", mew=0.9, color=COLOURS[kind])
        axes.plot([], [], color="#444444", lw=2.2, label="geometric mean over seeds")
        axes.plot([], [], "D", ms=4, mfc="none", color="#444444", label="official program")
        _frame(axes, pairs)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)


def _group(pair: str) -> str:
    return (*claims_of(pair), "")[0]


def _frame(axes: Any, pairs: Sequence[str]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("test mean squared error of the roll-out (lower is better)")
    axes.set_yticks(range(len(pairs)), [_name(pair) for pair in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    for place, pair in enumerate(pairs):
        if place and _group(pair) != _group(pairs[place - 1]):
            axes.axhline(place - 0.5, color="#bbbbbb", lw=0.8)
        if place == 0 or _group(pair) != _group(pairs[place - 1]):
            axes.annotate(
                _GROUPS[_group(pair)],
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                color="#666666",
                style="italic",
            )
