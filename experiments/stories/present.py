"""The tables and figures of the experiment, from its records alone."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.common import machine
from experiments.common.command import Shown
from experiments.common.readme import markdown_table, number
from experiments.stories.verdict import BASELINES, KINDS, VERDICTS, accuracy
from thicket_jax.reports.figures import COLOURS, canvas

_NAMES = {
    "base": "base",
    "self_consistency": "self-consistency",
    "random_control": "random control",
    "best_single": "best single",
    "ensemble": "ensemble",
}
_COLOURS = {
    "base": COLOURS["base"],
    "self_consistency": "#56b4e9",
    "random_control": "#8c8c8c",
    "best_single": COLOURS["best"],
    "ensemble": COLOURS["ensemble"],
}
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")


def present_table(table: Mapping[str, Any], folder: pathlib.Path) -> Shown:
    """Returns the tables, and what came out in words; draws both figures into the folder."""
    _draw_accuracy(table, folder / "accuracy.png")
    _draw_density(table, folder / "density.png")
    found = _found(table, max(table["settings"]["k"]))
    return Shown({"table": tables(table)}, found.splitlines(), ["accuracy.png", "density.png"])


def tables(table: Mapping[str, Any]) -> str:
    """Returns verdicts, accuracies, densities and times as Markdown."""
    size, runs = table["settings"], table["runs"]
    k, seeds = max(size["k"]), sorted({run["seed"] for run in runs})
    sampling = runs[0]["sampling"]
    about = (
        f"{len(runs)} searches around {runs[0]['model']}: N = {size['num']}, "
        f"{size['train_items']} train and {size['test_items']} test prompts, "
        f"{size['max_tokens']} tokens, seeds {', '.join(map(str, seeds))}. Accuracies are "
        "percentages of the test prompts unless it says train; votes are majority votes; numbers "
        f"of several searches are means. Self-consistency: {k} samples of the base at temperature "
        f"{sampling['temperature']:g}, top-p {sampling['top_p']:g}. Base and self-consistency "
        "know neither sigma nor noise: in all searches of one seed they are the same."
    )
    parts = [_found(table, k), about, _verdicts(table, k), _accuracies(table, k)]
    parts += [_densities(table), _times(table), machine.sentence(table["provenance"])]
    return "\n\n".join(parts)


def _found(table: Mapping[str, Any], k: int) -> str:
    """What came out, in words: counts of verdicts and the sigmas that did best."""
    lines = []
    for row in table["verdicts"]:
        if row["sigma"] is None:
            counts = ", ".join(f"{name} in {row[name]}" for name in VERDICTS)
            lines.append(
                f"* Ensemble of {k} against {_NAMES[row['baseline']]}: {counts} of {row['runs']} "
                f"searches; mean difference {_points(row['difference'])} points."
            )
    rows = table["summary"]
    best = max(rows, key=lambda row: row["ensemble"][str(k)])
    top, base = _percent(best["ensemble"][str(k)]), _percent(best["base"])
    lines.append(
        f"* The best mean of an ensemble of {k} is {top} %, at sigma {best['sigma']:g} "
        f"({best['noise']}), where the base has {base} %; picked among all after the fact, so it "
        "is no estimate of what a new search would find."
    )
    dense = max(rows, key=lambda row: row["fraction_ge"])
    thin = min(rows, key=lambda row: row["fraction_ge"])
    lines.append(
        "* The share of experts at least as good as the base on the train prompts is "
        f"{_percent(dense['fraction_ge'])} % at sigma {dense['sigma']:g} ({dense['noise']}) and "
        f"{_percent(thin['fraction_ge'])} % at sigma {thin['sigma']:g} ({thin['noise']})."
    )
    return "\n".join(lines)


def _verdicts(table: Mapping[str, Any], k: int) -> str:
    rows = table["verdicts"]
    sigmas = list(dict.fromkeys(row["sigma"] for row in rows))
    cells = []
    for baseline in BASELINES:
        own = {row["sigma"]: row for row in rows if row["baseline"] == baseline}
        counts = [
            f"{_points(own[s]['difference'])} ({' / '.join(str(own[s][v]) for v in VERDICTS)})"
            for s in sigmas
        ]
        cells.append([_NAMES[baseline], *counts])
    head = [f"sigma {s:g}" if s is not None else "all" for s in sigmas]
    return (
        f"Ensemble of {k} minus baseline, in points, with the searches in which it is "
        f"({' / '.join(VERDICTS)}):\n\n" + markdown_table([f"ensemble of {k} minus", *head], cells)
    )


def _accuracies(table: Mapping[str, Any], k: int) -> str:
    rows, ks = table["summary"], [size for size in sorted(table["settings"]["k"]) if size > 1]
    cells = [
        [
            f"{row['noise']}, {row['sigma']:g}",
            *(_percent(row[kind]) for kind in BASELINES),
            *(_percent(row["ensemble"][str(size)]) for size in ks),
        ]
        for row in rows
    ]
    names = [_NAMES[kind] for kind in BASELINES]
    names[1] += f" of {k}"
    names[2] += f" of {k}"
    return markdown_table(["noise, sigma", *names, *(f"ensemble of {size}" for size in ks)], cells)


def _densities(table: Mapping[str, Any]) -> str:
    cells = [
        [
            f"{row['noise']}, {row['sigma']:g}",
            *(_percent(row[name]) for name in ("fraction_ge", "fraction_gt", "perfect")),
            *(_percent(row[name]) for name in ("mean_train", "best_train")),
        ]
        for row in table["summary"]
    ]
    head = ["noise, sigma", "experts ≥ base", "> base", "right on all train prompts"]
    head += ["mean train accuracy of an expert", "of the best expert"]
    return markdown_table(head, cells)


def _times(table: Mapping[str, Any]) -> str:
    runs, seconds = table["runs"], table["seconds"]
    stages = ("setup", "compile", "score", "answer", "total")
    cells = []
    for noise in dict.fromkeys(run["noise"] for run in runs):
        own = [run for run in runs if run["noise"] == noise]
        for label, some in (("first", own[:1]), ("later", own[1:])):
            if some:
                means = [sum(run["seconds"][s] for run in some) / len(some) for s in stages]
                rates = [
                    sum(run[name] for run in some) / len(some)
                    for name in ("experts_per_s", "tokens_per_s")
                ]
                cells.append(
                    [f"{noise}, {label} ({len(some)})", *map(number, means), *map(number, rates)]
                )
    head = ["mean seconds of a search", "setup", "compile", "score", "test answers", "total"]
    head += ["experts/s", "tokens/s"]
    return (
        f"All of it took {seconds:.0f} s ({seconds / 60:.1f} minutes) in one process. The first "
        "search of a noise law compiles its program, the later ones find it.\n\n"
        + markdown_table(head, cells)
    )


def _draw_accuracy(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Test accuracy by noise and sigma: seeds as points, their mean as a bar."""
    runs, k = table["runs"], max(table["settings"]["k"])
    noises = list(dict.fromkeys(run["noise"] for run in runs))
    sigmas = sorted({run["sigma"] for run in runs})
    width = 0.8 / len(KINDS)
    with canvas(max(7.8, 1.6 + 3.9 * len(noises)), 3.9, path) as figure:
        panels = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
        for axes, noise in zip(panels, noises, strict=True):
            for place, sigma in enumerate(sigmas):
                own = [run for run in runs if (run["noise"], run["sigma"]) == (noise, sigma)]
                for i, kind in enumerate(KINDS):
                    values = [100 * accuracy(run, kind, k) for run in own]
                    x = place + (i - (len(KINDS) - 1) / 2) * width
                    reach = 0.36 * width
                    axes.plot(
                        _spread(x, reach, len(values)), values, "o",
                        ms=4.5, alpha=0.8, mew=0, color=_COLOURS[kind],
                    )  # fmt: skip
                    mean = sum(values) / len(values)
                    axes.plot([x - reach, x + reach], [mean] * 2, color=_COLOURS[kind], lw=2.4)
            axes.set_title(f"{noise} noise", loc="left")
            axes.set_xticks(range(len(sigmas)), [f"σ = {sigma:g}" for sigma in sigmas])
            axes.set_xlim(-0.55, len(sigmas) - 0.45)
            axes.tick_params(axis="x", length=0)
            axes.grid(axis="y")
            for edge in range(1, len(sigmas)):
                axes.axvline(edge - 0.5, color="#dddddd", lw=0.8)
        panels[0].set_ylabel("test accuracy, % (higher is better)")
        for kind in KINDS:
            of = f" of {k}" if kind in ("self_consistency", "random_control", "ensemble") else ""
            panels[0].plot(
                [], [], "o-", ms=4.5, mew=0, lw=2.4, color=_COLOURS[kind], label=_NAMES[kind] + of
            )
        figure.legend(loc="outside upper center", ncols=len(KINDS), fontsize=8.5)


def _draw_density(table: Mapping[str, Any], path: pathlib.Path) -> None:
    """Shares of experts and their mean accuracy by sigma: seeds as points, means as lines."""
    runs = table["runs"]
    noises = list(dict.fromkeys(run["noise"] for run in runs))
    sigmas = sorted({run["sigma"] for run in runs})
    parts = (
        ("fraction_ge", "at least as good as the base", "% of the experts"),
        ("fraction_gt", "better than the base", "% of the experts"),
        ("mean", "an expert's train accuracy", "mean, %"),
    )
    colours = (COLOURS["better"], "#cc79a7", COLOURS["truth"])
    with canvas(9.4, 3.1, path) as figure:
        for axes, (name, title, unit) in zip(figure.subplots(1, 3), parts, strict=True):
            for i, noise in enumerate(noises):
                style = {"color": colours[i % 3], "marker": _MARKERS[i % 3]}
                own = {
                    sigma: [
                        100 * run["density"][name]
                        for run in runs
                        if (run["noise"], run["sigma"]) == (noise, sigma)
                    ]
                    for sigma in sigmas
                }
                for sigma, values in own.items():
                    axes.plot([sigma] * len(values), values, ls="", ms=4.5, mfc="none", **style)
                means = [sum(values) / len(values) for values in own.values()]
                axes.plot(sigmas, means, ls=_DASHES[i % 3], lw=1.6, label=noise, ms=0, **style)
            if name == "mean":
                bases = [100 * run["base"]["train"] for run in runs]
                axes.axhline(
                    sum(bases) / len(bases), color=COLOURS["base"], lw=1.4, label="base, mean"
                )
            axes.set_xscale("log")
            axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("σ")
            axes.set_ylabel(unit)
            axes.set_title(title, loc="left")
            axes.set_ylim(0)
            axes.grid()
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8.5)


def _spread(x: float, reach: float, count: int) -> list[float]:
    """Places `count` points side by side around x, so that equal ones do not hide one another."""
    if count == 1:
        return [x]
    return [x - reach / 1.5 + 2 * reach / 1.5 * i / (count - 1) for i in range(count)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")
