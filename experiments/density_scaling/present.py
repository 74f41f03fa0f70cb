"""The tables and the figures of the experiment, from its records alone."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from thicket_jax.reports.figures import COLOURS, RULE_COLOURS, canvas

SCORES = {"accuracy": "accuracy", "likelihood": "log-likelihood of the right answer"}
_MARKERS = ("o", "s", "^", "v")


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the tables and the verdicts; draws the figures into the folder."""
    figures = ["density.png", "likelihood.png", "discordance.png"]
    _draw_density(table, "accuracy", folder / figures[0])
    _draw_density(table, "likelihood", folder / figures[1])
    _draw_discordance(table, folder / figures[2])
    lines = [
        f"{row['setting']}, {row['score']} {row['better']}: density {row['density']}, "
        f"discordance {row['discordance']['word']}"
        for row in table["verdicts"]
    ]
    return Shown({"table": tables(table)}, lines, figures)


def tables(table: Mapping[str, Any]) -> str:
    """Returns verdicts, models, densities and discordances as Markdown."""
    records = table["records"]
    counts, settings = table["identity"]["counts"], table["identity"]["settings"]
    parts = [
        _sentences(table),
        _claims(table),
        f"N = {counts['num']} experts of each setting, {counts['items']} test lines of each task. "
        "`sigma` settings are absolute, `KL` settings have the sigma at which an expert moves the "
        "logits of the answers by so many nats a token. > counts experts that are better than "
        "their base, ≥ also those that are as good. τ is Kendall's, of their share with the number "
        "of parameters; in brackets its p.",
        "**Trend of the density with the number of parameters**\n\n" + _trends(table),
        "**The models** (means over seeds)\n\n" + _models(records),
    ]
    for score, name in SCORES.items():
        for setting in settings:
            parts.append(
                f"**Experts better than the base, by {name}, %; setting {setting}** (means over "
                "seeds, ± standard deviation over seeds)\n\n" + _density(records, setting, score)
            )
    parts += [
        "**Margins**: the mean over tasks of δ(m), ≥, by accuracy, %\n\n" + _margins(table),
        "**Discordance D** (means over seeds; ± standard deviation; in brackets without item "
        "noise)\n\n" + _discordance(records, settings),
    ]
    story = [r for r in records if r["kind"] == "story"]
    if story:
        parts.append("**stories260K on its own task** (hero consistency)\n\n" + _story(story))
    parts.append(_times(table))
    return "\n\n".join(parts)


def _sentences(table: Mapping[str, Any]) -> str:
    """What the smallest and the largest model have, as sentences."""
    records = table["records"]
    sizes = _sizes(records)
    said = []
    for setting in table["identity"]["settings"]:
        parts = []
        for score, which, name in (
            ("accuracy", "ge", "as accurate as their base or more"),
            ("accuracy", "gt", "more accurate"),
            ("likelihood", "gt", "better by likelihood"),
        ):
            ends = []
            for size in (sizes[0], sizes[-1]):
                own = _own(records, "trained", parameters=size, setting=setting)
                names = own[0][score]["tasks"]
                found = [_better(r, score, task, which) for r in own for task in names]
                ends.append(f"{100 * np.mean(found):.0f} %")
            parts.append(f"{name}: {ends[0]} and {ends[1]}")
        values = [
            r["likelihood"]["discordance"]["value"]
            for r in _own(records, "trained", setting=setting)
        ]
        known = [v for v in values if v is not None]
        spread = f"{min(known):.2f} to {max(known):.2f}" if known else "not defined"
        said.append(
            f"* {setting}: experts around the smallest ({size_name(sizes[0])}) and the largest "
            f"model ({size_name(sizes[-1])}), means over tasks and seeds, {'; '.join(parts)}. "
            f"Discordance by likelihood, all sizes: {spread}."
        )
    return "\n".join(said)


def _claims(table: Mapping[str, Any]) -> str:
    rows = []
    for row in table["verdicts"]:
        words = [t["word"] for t in row["tasks"].values()]
        said = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
        rows.append(
            [
                row["setting"],
                f"{row['score']}, {row['better']}",
                f"**{row['density']}**",
                said,
                row["discordance"]["word"],
            ]
        )
    head = ["setting", "score, experts counted", "density grows with scale", "tasks", "discordance"]
    return markdown_table(head, rows, left=5)


def _trends(table: Mapping[str, Any]) -> str:
    verdicts = table["verdicts"]
    names = list(verdicts[0]["tasks"])
    rows = []
    for row in verdicts:
        cells = [_trend(row["tasks"][name]) for name in names] + [_trend(row["discordance"])]
        rows.append([f"{row['setting']}, {row['score']}, {row['better']}", *cells])
    return markdown_table(["setting, score", *names, "D"], rows)


def _trend(found: Mapping[str, Any]) -> str:
    if found["tau"] is None:
        return "no room" if found["word"] == "no room" else "-"
    return f"{found['tau']:+.2f} ({found['p']:.3f})".replace("-", "−")


def _own(records: Sequence[Mapping[str, Any]], kind: str, **wanted: Any) -> list[Any]:
    return [r for r in records if r["kind"] == kind and all(r[k] == v for k, v in wanted.items())]


def _sizes(records: Sequence[Mapping[str, Any]], kind: str = "trained") -> list[int]:
    return sorted({r["parameters"] for r in _own(records, kind)})


def size_name(parameters: int) -> str:
    """Returns a number of parameters rounded: `12k`, `2.6M`."""
    if parameters >= 1e6:
        return f"{parameters / 1e6:.1f}M"
    return f"{parameters / 1e3:.0f}k"


def _models(records: Sequence[Mapping[str, Any]]) -> str:
    names = list(_own(records, "trained")[0]["accuracy"]["tasks"])
    rows = []
    for size in _sizes(records):
        own = _own(records, "trained", parameters=size)
        firsts = [r for r in own if r["setting"] == own[0]["setting"]]
        curves = [r["curve"] for r in firsts]
        sigmas = []
        for setting in dict.fromkeys(r["setting"] for r in own):
            if setting.startswith("KL"):
                found = [r["sigma"] for r in own if r["setting"] == setting]
                sigmas.append(number(float(np.mean(found))))
        rows.append(
            [
                f"{size:,}",
                number(float(np.mean([c["steps"] for c in curves])), 4),
                f"{np.mean([c['flatness'] for c in curves]):.2f}",
                f"{sum(c['capped'] for c in curves)} of {len(curves)}",
                number(float(np.mean([c["final"] for c in curves]))),
                " / ".join(sigmas) or "-",
                *(f"{100 * _mean_base(firsts, name):.0f}" for name in names),
            ]
        )
    head = ["parameters", "steps", "flatness", "capped", "loss", "σ at KL", *names]
    return markdown_table(head, rows, left=0) + (
        "\n\nThe last columns are the base's accuracy, %; *flatness* is the loss over that of half "
        "as many steps, at the constant rate; *capped*: how many the limit of steps stopped."
    )


def _mean_base(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([r["accuracy"]["tasks"][name]["base"] for r in records]))


def _better(record: Mapping[str, Any], score: str, name: str, which: str = "gt") -> float:
    return float(record[score]["tasks"][name]["density"][which][0])


def _density(records: Sequence[Mapping[str, Any]], setting: str, score: str) -> str:
    names = list(_own(records, "trained")[0]["accuracy"]["tasks"])
    rows = []
    for kind in ("trained", "untrained"):
        for size in _sizes(records, kind):
            own = _own(records, kind, parameters=size, setting=setting)
            if not own:
                continue
            cells = []
            for name in [*names, None]:
                values = [
                    100 * np.mean([_better(r, score, n) for n in ([name] if name else names)])
                    for r in own
                ]
                spread = f" ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.0f}{spread}")
            label = size_name(size) + (", untrained" if kind == "untrained" else "")
            rows.append([label, *cells])
    return markdown_table(["parameters", *names, "mean"], rows)


def _margins(table: Mapping[str, Any]) -> str:
    records, settings = table["records"], table["identity"]["settings"]
    rows = []
    for setting in settings:
        for size in _sizes(records):
            own = _own(records, "trained", parameters=size, setting=setting)
            tasks = [t for r in own for t in r["accuracy"]["tasks"].values()]
            margins = tasks[0]["density"]["margins"]
            shares = [
                100 * np.mean([t["density"]["ge"][i] for t in tasks]) for i in range(len(margins))
            ]
            rows.append([setting, size_name(size), *(f"{x:.1f}" for x in shares)])
    return markdown_table(["setting", "parameters", *(f"m = {m:g}" for m in margins)], rows, left=2)


def _discordance(records: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    rows = []
    for size in _sizes(records):
        cells = []
        for setting in settings:
            for score in SCORES:
                own = _own(records, "trained", parameters=size, setting=setting)
                found = [r[score]["discordance"] for r in own]
                values = [f["value"] for f in found if f["value"] is not None]
                clean = [f["without_noise"] for f in found if f["without_noise"] is not None]
                spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
                text = f"{np.mean(values):.2f}{spread}" if values else "-"
                cells.append(text + (f" ({np.mean(clean):.2f})" if clean else ""))
        rows.append([size_name(size), *cells])
    head = [f"{setting}, {score}" for setting in settings for score in SCORES]
    return markdown_table(["parameters", *head], rows)


def _story(records: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for r in records:
        (task,) = r["accuracy"]["tasks"].values()
        shares = task["density"]
        rows.append(
            [
                r["setting"],
                number(r["sigma"]),
                f"{100 * task['base']:.1f}",
                "-" if task["mean"] is None else f"{100 * task['mean']:.1f}",
                f"{100 * shares['ge'][0]:.1f}",
                f"{100 * shares['gt'][0]:.1f}",
            ]
        )
    head = ["setting", "sigma", "base, %", "mean expert, %", "experts ≥ base, %", "> base, %"]
    return markdown_table(head, rows)


def _times(table: Mapping[str, Any]) -> str:
    records = table["records"]
    curves = {(r["width"], r["seed"]): r["curve"]["seconds"] for r in _own(records, "trained")}
    scoring = sum(r["seconds"] for r in records)
    rows = [["scoring and calibrating", number(scoring / 60)]]
    rows.append(["pretraining, one model on each core", number(sum(curves.values()) / 60)])
    return (
        markdown_table(["what took how long", "minutes"], rows)
        + "\n\n"
        + machine.sentence(table["provenance"])
    )


def _colours(settings: Sequence[str]) -> dict[str, tuple[str, str]]:
    colours = (COLOURS["base"], RULE_COLOURS[0], RULE_COLOURS[3], RULE_COLOURS[1])
    return {s: (colours[i % 4], _MARKERS[i % 4]) for i, s in enumerate(settings)}


def _draw_density(table: Mapping[str, Any], score: str, path: pathlib.Path) -> None:
    """Shares of better experts against parameters, a panel for each task."""
    records, settings = table["records"], table["identity"]["settings"]
    names = list(_own(records, "trained")[0]["accuracy"]["tasks"])
    sizes, styles = _sizes(records), _colours(settings)
    columns = 5
    lines = -(-(len(names) + 1) // columns)
    with canvas(11.5, 2.55 * lines + 0.7, path) as figure:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        panels = panels.reshape(-1)
        for axes, name in zip(panels, names, strict=False):
            base = [_mean_base(_own(records, "trained", parameters=size), name) for size in sizes]
            if score == "accuracy":
                axes.fill_between(sizes, 0, base, color="#ececec", lw=0, zorder=0)
            for setting, (colour, marker) in styles.items():
                _line(axes, records, "trained", setting, score, name, colour, marker)
                _line(axes, records, "untrained", setting, score, name, colour, "x")
            axes.set_title(name, loc="left")
            axes.grid(True)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        first = panels[0]
        first.set_xscale("log")
        first.set_ylim(-0.02, 1.02)
        first.set_xticks(sizes, [size_name(size) for size in sizes])
        first.set_xticks([], minor=True)
        for axes in panels[len(names) - columns + 1 - (len(names) % columns == 0) : len(names)]:
            axes.tick_params(labelbottom=True)
        for axes in panels:
            axes.tick_params(axis="x", labelsize=7.5)
        figure.supxlabel("parameters", fontsize=9)
        figure.supylabel(f"share of experts, by {score}", fontsize=9)
        _key(panels[-1], styles, score)


def _line(
    axes: Any, records: Any, kind: str, setting: str, score: str, name: str, colour: str, mark: str
) -> None:
    sizes = [s for s in _sizes(records, kind) if _own(records, kind, parameters=s, setting=setting)]
    if not sizes:
        return
    own = {s: _own(records, kind, parameters=s, setting=setting) for s in sizes}
    dashes = "-" if kind == "trained" else ":"
    means = [np.mean([_better(r, score, name) for r in own[s]]) for s in sizes]
    axes.plot(sizes, means, color=colour, ls=dashes, lw=1.5 if kind == "trained" else 1)
    if kind == "trained" and score == "accuracy":
        least = [np.mean([_better(r, score, name, "ge") for r in own[s]]) for s in sizes]
        axes.plot(sizes, least, color=colour, ls="--", lw=0.9)
    for s in sizes:
        values = [_better(r, score, name) for r in own[s]]
        axes.plot([s] * len(values), values, mark, ms=3.4, mew=0.8, color=colour, alpha=0.75,
                  mfc=colour if mark != "x" else "none")  # fmt: skip


def _key(axes: Any, styles: Mapping[str, tuple[str, str]], score: str) -> None:
    for setting, (colour, marker) in styles.items():
        axes.plot([], [], marker + "-", ms=4, color=colour, label=f"better (>), {setting}")
    if score == "accuracy":
        axes.plot([], [], "--", lw=0.9, color="#444444", label="as good or better (≥)")
    axes.plot([], [], "x:", ms=4, lw=1, color="#444444", label="better, untrained model")
    if score == "accuracy":
        axes.fill_between([], [], color="#ececec", label="the base's accuracy")
    axes.legend(loc="center left", fontsize=8, borderaxespad=0)


def _draw_discordance(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """The bases' loss, then D against parameters by both scores, bars its bootstrap interval."""
    records, settings = table["records"], table["identity"]["settings"]
    styles, sizes = _colours(settings), _sizes(records)
    with canvas(10.5, 3.3, path) as figure:
        panels = figure.subplots(1, 3)
        for size in sizes:
            own = _own(records, "trained", parameters=size, setting=settings[0])
            panels[0].plot([size] * len(own), [r["curve"]["final"] for r in own], "o",
                           ms=4, color=COLOURS["truth"], alpha=0.7)  # fmt: skip
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_formatter("{x:g}")
        panels[0].tick_params(axis="y", which="both", labelsize=7.5)
        panels[0].set_title("the models", loc="left")
        panels[0].set_ylabel("training loss of the answers, nats a token")
        for axes, score in zip(panels[1:], SCORES, strict=True):
            for shift, (setting, (colour, marker)) in zip((0.93, 1.0, 1.075, 1.15), styles.items(),
                                                          strict=False):  # fmt: skip
                means = []
                for size in sizes:
                    own = _own(records, "trained", parameters=size, setting=setting)
                    found = [r[score]["discordance"] for r in own]
                    found = [f for f in found if f["value"] is not None]
                    values = [f["value"] for f in found]
                    means.append(np.mean(values) if values else np.nan)
                    for f in found:
                        low, high = f["interval"]
                        axes.plot([size * shift] * 2, [low, high], color=colour, lw=0.7, alpha=0.6)
                    axes.plot([size * shift] * len(values), values, marker, ms=3.6, color=colour)
                axes.plot(np.array(sizes) * shift, means, color=colour, lw=1.5, label=setting)
            axes.axhline(1, color="#888888", lw=0.8)
            axes.annotate("D = 1: unrelated specialists", (0.02, 0.03), xycoords="axes fraction",
                          fontsize=7.5, color="#666666")  # fmt: skip
            axes.set_title(f"by {score}", loc="left")
            axes.set_ylabel("discordance D of the tasks")
        panels[2].sharey(panels[1])
        for axes in panels:
            axes.set_xscale("log")
            axes.set_xticks(sizes, [size_name(size) for size in sizes], fontsize=7.5)
            axes.set_xticks([], minor=True)
            axes.set_xlabel("parameters")
            axes.grid(True)
        panels[1].legend(fontsize=8)
