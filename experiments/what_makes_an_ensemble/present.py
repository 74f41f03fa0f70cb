"""The tables and figures of the experiment, from its records alone."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from experiments.what_makes_an_ensemble.verdict import RANDOM, TOP, summarise
from thicket_jax.reports.figures import COLOURS, canvas

LOOKS = {  # Okabe and Ito's colours, and a marker, so that no line is known by colour alone
    TOP: ("#d55e00", "o", "-"),
    "greedy": ("#0072b2", "s", "-"),
    "bagged greedy": ("#56b4e9", "D", "-"),
    "complementary": ("#009e73", "^", "-"),
    "weighted top K": ("#cc79a7", "v", "--"),
    "median of top K": ("#e69f00", "x", "--"),
    "mean probs of top K": ("#e69f00", "+", "--"),
    "merged top K": ("#000000", "*", ":"),
    RANDOM: ("#8a8a8a", ".", "-"),
}
_SHOWN_IN_PARTS = (TOP, "greedy", "bagged greedy", "complementary")


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the tables and the verdicts; draws the figures into the folder.

    These are ensembles.png, test results by size, and parts.png, what they are made of.
    """
    table = {**table, "summary": summarise(table["runs"])}
    _draw_sizes(table, folder / "ensembles.png")
    _draw_parts(table, folder / "parts.png")
    lines = [
        f"{row['case']}, {row['way']} against the top {row['at']}: {row['verdict']}"
        for row in table["verdicts"]
        if row["verdict"]
    ]
    return Shown({"table": text(table)}, lines, ["ensembles.png", "parts.png"])


def text(table: Mapping[str, Any]) -> str:
    """Returns verdicts, results by size, train against test, and diversity, as Markdown."""
    parts = [
        "Each way against the top K joined plainly (vote, or mean) at the size judged at; "
        "differences are outcomes, higher is better, with their 95 % intervals over the test items "
        "of all seeds.",
        _verdicts(table),
        "**Test result by size.** Means over the seeds; accuracy for digits and stories, roll-out "
        "error for signals (lower is better).",
        *_by_size(table),
        "**Train against test**, as gains over the base at the size judged at: what a way loses "
        "between the items it was chosen on and new ones. Gains of signals are in units of the "
        "base's error. In squared error of votes, or of values, on test items: error of the "
        "ensemble = mean error of its members − diversity; alike = mean correlation of the errors "
        "of two members; distinct = different experts among the K.",
        _parts(table),
        _searches(table),
    ]
    parts += sorted({machine.sentence(run["provenance"]) for run in table["runs"]})
    return "\n\n".join(parts)


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['delta']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def _verdicts(table: Mapping[str, Any]) -> str:
    cells = []
    for row in table["verdicts"]:
        share = "-" if row["of_top"] is None else f"{100 * row['of_top']:.0f} %"
        sizes = [
            f"{name} at {', '.join(map(str, row['sizes'][name]))}"
            for name in ("ahead", "behind")
            if row["sizes"][name]
        ]
        cells.append(
            [
                f"{row['case']}, {row['way']}",
                row["verdict"] or "the yardstick",
                "; ".join(sizes) or "-",
                _interval(row["minus_top"]),
                _interval(row["minus_random"]),
                share,
                "-" if row["saturated"] is None else str(row["saturated"]),
            ]
        )
    head = [f"way, K = {table['verdicts'][0]['at']}", "against top K", "by size"]
    head += ["minus top K", "minus random", "gain, of that of top K", "saturated at"]
    return markdown_table(head, cells, left=3)


def _by_size(table: Mapping[str, Any]) -> list[str]:
    parts = []
    for case in dict.fromkeys(run["case"] for run in table["runs"]):
        own = [row for row in table["summary"] if row["case"] == case]
        runs = [run for run in table["runs"] if run["case"] == case]
        ks = sorted({row["k"] for row in own})
        base = sum(run["base"]["test"] for run in runs) / len(runs)
        cells = [
            [way, *(number(_at(own, way, k)["test"]) for k in ks)]
            for way in dict.fromkeys(row["way"] for row in own)
        ]
        head = [f"{case}; base {number(base)}", *(f"K = {k}" for k in ks)]
        parts.append(markdown_table(head, cells))
    return parts


def _at(rows: Sequence[Mapping[str, Any]], way: str, k: int) -> Mapping[str, Any]:
    return next(row for row in rows if (row["way"], row["k"]) == (way, k))


def _parts(table: Mapping[str, Any]) -> str:
    cells, at = [], table["verdicts"][0]["at"]
    for row in table["summary"]:
        if row["k"] == at and row["error"] is not None:
            lost = row["gain_train"] - row["gain_test"]
            values = [row["gain_train"], row["gain_test"], lost]
            values += [row[name] for name in ("error", "mean_error", "diversity", "alike")]
            cells.append([f"{row['case']}, {row['way']}", *map(number, [*values, row["distinct"]])])
    head = [f"way, K = {at}", "gain on train", "on test", "lost", "squared error", "of members"]
    return markdown_table([*head, "diversity", "alike", "distinct"], cells)


def _searches(table: Mapping[str, Any]) -> str:
    cells = []
    for case in dict.fromkeys(run["case"] for run in table["runs"]):
        own = [run for run in table["runs"] if run["case"] == case]

        def mean(pick: Any, own: Any = own) -> float:
            return sum(map(pick, own)) / len(own)

        cells.append(
            [
                case,
                str(len(own)),
                number(mean(lambda run: run["better_than_base"])),
                "-" if own[0]["perfect"] is None else number(mean(lambda run: run["perfect"])),
                str(sum(run["failed"][0] for run in own)),
                number(mean(lambda run: run["seconds"]["answers"])),
                number(mean(lambda run: run["seconds"]["ensembles"])),
            ]
        )
    total = sum(sum(run["seconds"].values()) for run in table["runs"])
    head = ["search", "seeds", "experts better than base on train", "right on all train items"]
    head += ["failed", "s, answers", "s, ensembles"]
    return f"All searches together took {total / 60:.1f} minutes.\n\n" + markdown_table(head, cells)


def _cases(table: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["case"] for run in table["runs"]))


def _ticks(axes: Any, ks: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.minorticks_off()
    axes.grid(axis="y")


def _draw_sizes(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Result against K, beside the base, a panel a case; bands are intervals over test items."""
    cases = _cases(table)
    columns = min(3, len(cases))
    lines = -(-len(cases) // columns)
    with canvas(max(6.4, 4.1 * columns), 3.3 * lines + 0.9, path) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, case in zip(panels, cases, strict=False):
            own = [row for row in table["summary"] if row["case"] == case]
            ks = sorted({row["k"] for row in own})
            relative = next(r for r in table["runs"] if r["case"] == case)["metric"] == "mse"

            def shown(gain: float, relative: bool = relative) -> float:
                return 1 - gain if relative else gain

            for way, (colour, marker, style) in LOOKS.items():
                points = [row["minus_base"] for row in own if row["way"] == way]
                if not points or None in points:
                    continue
                values = [shown(point["delta"]) for point in points]
                axes.plot(ks, values, marker + style, color=colour, ms=4.5, lw=1.5)
                if way in (TOP, RANDOM):
                    low, high = ([shown(p[end]) for p in points] for end in ("low", "high"))
                    axes.fill_between(ks, low, high, color=colour, alpha=0.15, lw=0)
            axes.axhline(shown(0), color=COLOURS["base"], lw=1, ls=(0, (1, 2)))
            single = shown(_at(own, TOP, min(ks))["gain_test"])
            axes.axhline(single, color=COLOURS["best"], lw=1, ls=(0, (5, 2)))
            if relative:
                axes.set_yscale("log")
                least = min(shown(row["gain_test"]) for row in own)
                axes.set_ylim(bottom=0.6 * least)  # a band may reach 0, which has no logarithm
            axes.set_ylabel(
                "error / base's error (lower is better)"
                if relative
                else "accuracy − base's accuracy"
            )
            axes.set_title(case, loc="left")
            axes.set_xlabel("members of the ensemble, K")
            _ticks(axes, ks)
        _legend(figure, panels, len(cases), _used(table))


def _used(table: Mapping[str, Any]) -> list[str]:
    ways = {row["way"] for row in table["summary"]}
    return [way for way in LOOKS if way in ways]


def _legend(figure: Any, panels: Any, used: int, ways: Sequence[str]) -> None:
    """In the panel that is left over, if there is one, else above all."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=LOOKS[way][0], marker=LOOKS[way][1], ls=LOOKS[way][2], label=way)
        for way in ways
    ]
    handles.append(Line2D([], [], color=COLOURS["base"], lw=1, ls=(0, (1, 2)), label="base"))
    handles.append(
        Line2D([], [], color=COLOURS["best"], lw=1, ls=(0, (5, 2)), label="best single on train")
    )
    for axes in panels[used:]:
        axes.axis("off")
    if used < len(panels):
        panels[used].legend(handles=handles, loc="center", fontsize=9)
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8)


def _draw_parts(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Above: gain on train (open) and test (full); below: error of members and of the ensemble."""
    cases = _cases(table)
    with canvas(max(6.4, 2.9 * len(cases)), 6.2, path) as figure:
        panels = figure.subplots(2, len(cases), squeeze=False)
        for column, case in enumerate(cases):
            own = [row for row in table["summary"] if row["case"] == case]
            ks = sorted({row["k"] for row in own})
            above, below = panels[:, column]
            for way in _SHOWN_IN_PARTS:
                colour, marker, _ = LOOKS[way]
                rows = [_at(own, way, k) for k in ks]
                above.plot(ks, [r["gain_test"] for r in rows], marker + "-", color=colour, ms=4)
                above.plot(
                    ks, [r["gain_train"] for r in rows], marker + ":", color=colour, ms=4, mfc="w"
                )
                below.plot(ks, [r["mean_error"] for r in rows], marker + ":", color=colour, ms=4,
                           mfc="w")  # fmt: skip
                below.plot(ks, [r["error"] for r in rows], marker + "-", color=colour, ms=4)
            above.set_title(case, loc="left")
            below.set_xlabel("members, K")
            for axes in (above, below):
                _ticks(axes, ks)
                axes.set_xticks(ks, [str(k) if k in (1, 5, 20, 100) else "" for k in ks])
        panels[0, 0].set_ylabel("gain over the base")
        panels[1, 0].set_ylabel("squared error, test items")
        _parts_legend(figure)


def _parts_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=LOOKS[way][0], marker=LOOKS[way][1], ls="-", ms=4, label=way)
        for way in _SHOWN_IN_PARTS
    ]
    grey = {"color": "#444444", "marker": "o", "ms": 4}
    handles += [
        Line2D([], [], ls="-", label="full: test items; the ensemble", **grey),
        Line2D([], [], ls=":", mfc="w", label="open: train items; mean of the members", **grey),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8.5)
