"""What the report of a run says: headline, tables, how to reproduce it. No layout here.

`documents` has the blocks, and turns them into HTML and Markdown.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import intervals
from thicket_jax.ensembles.combine import RULES
from thicket_jax.reports.asked_section import ASKED, how_it_was_asked
from thicket_jax.reports.baseline_sections import equal_inference, form_and_reasoning
from thicket_jax.reports.documents import (
    Block,
    Bullets,
    Code,
    Heading,
    Paragraph,
    Picture,
    Table,
    Tiles,
    Title,
)
from thicket_jax.reports.numbers import (
    difference,
    experts_label,
    joined_rounds,
    measured,
    rule_label,
    short,
    sigma_label,
)
from thicket_jax.runs.record import RunRecord

BEST_SHOWN = 10
STAGES = {
    "setup_s": "data, base model and its score",
    "compile_s": "compiling",
    "score_s": "scoring the experts",
    "ensemble_s": "answers of the kept experts",
}


def headline(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the ensemble that the report leads with: the first rule, the largest K.

    Not the best row: choosing it by its test result would flatter it.
    """
    first = [row for row in results["ensemble"] if row["combine"] == _first(results)["combine"]]
    return max(first, key=lambda row: row["k"]) if first else None


def verdict(results: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Returns `beats the base`, `is worse than the base` or `cannot be told from the base`."""
    low, high = row["delta_ci95"]
    if low is None or high is None or low <= 0 <= high:
        return "cannot be told from the base"
    better = (low > 0) == results["higher_is_better"]
    return "beats the base" if better else "is worse than the base"


def compose(
    record: RunRecord,
    results: Mapping[str, Any],
    shown: Sequence[tuple[str, str]],
    landscapes: Sequence[Block] = (),
) -> list[Block]:
    """Returns the report as blocks, from the headline to the provenance.

    Args:
      record: the run.
      results: what `results.build_results` returned.
      shown: (file name, caption) of each figure.
      landscapes: sections on planes through θ.
    """
    pictures = {name: Picture(name, caption) for name, caption in shown}

    def picture(name: str) -> list[Block]:
        return [pictures.pop(name)] if name in pictures else []

    blocks: list[Block] = [*_opening(record, results), *picture("comparison.png")]
    if results["ensemble"]:
        blocks += [Heading("Results on the test items"), _comparison(record, results)]
        blocks += [Paragraph(_footnote(results)), *picture("sweep.png")]
    blocks += [*equal_inference(record, results), *form_and_reasoning(results)]
    density, best = picture("scores.png"), picture("transfer.png")
    blocks += pictures.values()
    blocks += _selection(record)
    blocks += [Heading("Density around the base"), _density(record, results)]
    blocks += [Paragraph(_about_density(record, results)), *density]
    blocks += [Heading("Best experts"), _best(record), *best]
    blocks += landscapes
    if record.config.get("notes"):
        blocks += [Heading("Notes"), Bullets(tuple(map(str, record.config["notes"])))]
    blocks += how_it_was_asked(record)
    blocks += [Heading("How to reproduce it"), *_reproduce(record)]
    blocks += [Heading("Time"), _time(results)]
    provenance = _flat(results["provenance"])
    told = tuple(row for row in provenance if not row[0].startswith(f"task.{ASKED}."))
    blocks += [Heading("Provenance"), Table(("", ""), told, words=2)]
    options = tuple(_flat(record.config["options"]))
    return [*blocks, Table(("option", "value"), options, words=2, folded="All options")]


def _first(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return results["ensemble"][0] if results["ensemble"] else {"combine": None}


def _opening(record: RunRecord, results: Mapping[str, Any]) -> Iterator[Block]:
    base, best, metric = results["base"], results["best"], results["metric"]
    direction = f"{'higher' if results['higher_is_better'] else 'lower'} is better"
    sigmas = ", ".join(sigma_label(row["sigma"]) for row in results["density"])
    experts = f"{results['num']:,} experts (σ {sigmas})"
    row = headline(results)
    over = f"{results['task']} · {results['model']}"
    if row is None:
        yield Title(f"{results['num']:,} experts scored", over)
        yield Paragraph(
            f"On the train items, the base's {metric} is {short(base['train'])}; of {experts}, the "
            f"best single one, id {best['id']}, has {short(best['train'])} ({direction}). "
            "There are no test answers in this run, so nothing here is held out.",
            lead=True,
        )
        tiles = [("base, train", short(base["train"]), metric)]
        tiles += [("best single, train", short(best["train"]), f"expert {best['id']}")]
    else:
        assert record.targets is not None
        base_test, base_error = measured(base["test"], base["test_stderr"])
        best_test, best_error = measured(best["test"], best["test_stderr"])
        test, error = measured(row["test"], row["stderr"])
        delta, interval = difference(row["delta_vs_base"], row["delta_ci95"])
        many = row["k"] > 1
        who = f"An ensemble of {row['k']}" if many else "The best expert"
        best_of = f"ensemble of the {row['k']} best" if many else "best"
        by = f", combined by {rule_label(row['combine'])}," if many else ""
        yield Title(f"{who} {verdict(results, row)}", over)
        yield Paragraph(
            f"On {len(record.targets):,} held-out items, the base's {metric} is {base_test}. The "
            f"{best_of} of {experts}{by} has {test}: a difference of {delta} (95 % interval "
            f"{interval}, paired over the items; {direction}), so it {verdict(results, row)}. The "
            f"best single expert, id {best['id']}, has {best_test}.",
            lead=True,
        )
        tiles = [("base", base_test, f"± {base_error} std. error")]
        tiles += [("best single expert", best_test, f"± {best_error} std. error")]
        tiles += [(f"ensemble of {row['k']}", test, f"± {error} std. error")]
    share = sum(round(d["fraction_ge"] * d["n"]) for d in results["density"]) / results["num"]
    tiles += [("at least as good as base", f"{100 * share:.1f} %", "of all experts, on train")]
    yield Tiles(tuple(tiles))
    if results["failed"]:
        yield Paragraph(
            f"{results['failed']:,} of {results['num']:,} experts failed (their score was not a "
            "finite number). They rank last, count as below the base and are left out of means."
        )
    if "timed_out" in results:
        yield Paragraph(_late(results["timed_out"]))


def _late(found: Mapping[str, int]) -> str:
    """How many answers ran into a time limit, in a sentence."""
    return (
        f"{found['train']:,} answers to train items and {found['test']:,} to test items ran into "
        "the time limit of grading, or of the program that they are. An answer that could not be "
        "graded in time has no vote, and counts as wrong; a longer limit may grade it."
    )


def _comparison(record: RunRecord, results: Mapping[str, Any]) -> Table:
    base, best = results["base"], results["best"]
    rows = [("base", *measured(base["test"], base["test_stderr"]), "", "")]
    name = f"best single expert (id {best['id']}, σ {sigma_label(best['sigma'])})"
    rows += [(name, *measured(best["test"], best["test_stderr"]), *_against(record, 0))]
    unselected = record.random_answers
    if unselected is not None and len(unselected) and not results.get("baselines"):
        assert record.targets is not None
        tests = [record.metric.per_item(x, record.targets).mean() for x in unselected]
        label = f"random experts, median of {len(tests)}"
        middle, _ = measured(float(np.median(tests)), base["test_stderr"])
        rows += [(label, middle, "", "", "")]
    rows += [
        (
            f"{experts_label(row['k'])}, {rule_label(row['combine'])}",
            *measured(row["test"], row["stderr"]),
            *difference(row["delta_vs_base"], row["delta_ci95"]),
        )
        for row in results["ensemble"]
    ]
    metric = f"test {results['metric']}"
    return Table(("", metric, "std. error", "vs base", "95 % interval"), tuple(rows))


def _against(record: RunRecord, rank: int) -> tuple[str, str]:
    """The paired difference of one kept expert to the base, as two cells."""
    if record.base_answers is None or record.answers is None or record.targets is None:
        return "—", "—"
    kept = record.metric.per_item(record.answers[rank], record.targets)
    base = record.metric.per_item(record.base_answers, record.targets)
    return difference(*intervals.paired_difference(kept, base))


def _footnote(results: Mapping[str, Any]) -> str:
    text = (
        f"Test {results['metric']}, {'higher' if results['higher_is_better'] else 'lower'} is "
        "better. Differences are paired over the test items, with Student-t intervals."
    )
    if len(results["ensemble"]) > 1:
        text += (
            " The headline takes the first rule and the largest K, not the best row: the best row "
            "of a table of test results flatters."
        )
    return text


def _selection(record: RunRecord) -> Iterator[Block]:
    """How experts were selected in rounds, if they were."""
    found = record.selection
    if found is None:
        return
    yield Heading("Selection in rounds")
    rows = [
        (str(number), f"{row['experts']:,}", f"{row['start'] + 1:,} to {row['stop']:,}")
        for number, row in enumerate(joined_rounds(found["rounds"]), 1)
    ]
    yield Table(("step", "experts", "on items"), tuple(rows), words=0)
    limit = ""
    if found["rule"] == "halving":
        limit = f", of {100 * found['budget']:g} % that the budget allows"
    yield Paragraph(
        f"Not every expert was scored on every train item: {found['evaluations']:,} outcomes were "
        f"computed, {100 * found['share']:.1f} % of those of full scoring{limit}. All experts saw "
        "the items in one random order, and after each round the better ones went on "
        f"({found['rule']}). An expert's score is the mean over the items that it saw."
    )
    guarantee = found["guarantee"]
    if guarantee is None:
        yield Paragraph(
            "Halving gives no guarantee that the kept experts are the best of all: an expert that "
            "did badly on the first items only is lost."
        )
    else:
        yield Paragraph(guarantee["sentence"])


def _density(record: RunRecord, results: Mapping[str, Any]) -> Table:
    alive, scores, sigmas = ~record.failed, record.scores, record.sigmas
    if record.selection is not None:
        scores = record.base_score + record.gains
    rows = []
    for row in results["density"]:
        here = scores[alive & (sigmas == np.float32(row["sigma"]))]
        middle = record.metric.from_score(float(np.median(here))) if here.size else None
        low, high = (f"{100 * x:.1f}" for x in row["ci95"])
        rows.append(
            (
                sigma_label(row["sigma"]),
                f"{row['n']:,}",
                short(middle),
                short(row["mean"]),
                f"{100 * row['fraction_ge']:.1f} %",
                f"{low} to {high} %",
                f"{100 * row['fraction_gt']:.1f} %",
            )
        )
    metric = results["metric"]
    head = ("σ", "experts", f"median {metric}", f"mean {metric}")
    return Table((*head, "≥ base", "95 % interval", "> base"), tuple(rows), words=0)


def _about_density(record: RunRecord, results: Mapping[str, Any]) -> str:
    seen = record.items_seen
    if seen is not None:
        return (
            f"Experts saw different numbers of train items, {seen.min():,} to {seen.max():,}. Each "
            "is compared with the base on the items that it saw itself; medians and means are "
            f"those differences, added to the base's {short(results['base']['train'])} on all "
            "train items. ≥ base: the share of experts at least as good as the base on their "
            "items, with its Wilson interval; with few items a difference is rough, and many may "
            "be ties. An expert that changes nothing counts there, but not for > base."
        )
    return (
        f"Train items; the base has {short(results['base']['train'])}. ≥ base: the share of "
        "experts at least as good as the base, with its Wilson interval; an expert that changes "
        "nothing counts there, but not for > base, the share that is strictly better."
    )


def _best(record: RunRecord) -> Table:
    experts = sorted(record.experts["experts"], key=lambda row: row["rank"])
    experts = [row for row in experts if not row["failed"]][:BEST_SHOWN]
    columns: dict[str, list[str]] = {
        "rank": [str(row["rank"] + 1) for row in experts],
        "id": [str(row["id"]) for row in experts],
    }
    if any(row["sign"] < 0 for row in experts):
        columns["sign"] = ["+" if row["sign"] > 0 else "−" for row in experts]
    unit, name, tests = record.metric.from_score, record.metric.name, record.kept_tests()
    columns["σ"] = [sigma_label(float(str(np.float32(row["sigma"])))) for row in experts]
    columns[f"train {name}"] = [short(unit(row["score"])) for row in experts]
    if record.selection is not None:
        columns["train items"] = [f"{row['items']:,}" for row in experts]
    if len(tests):
        shown = [short(value) for value in tests[: len(experts)]]
        columns[f"test {name}"] = shown + ["—"] * (len(experts) - len(shown))
    return Table(tuple(columns), tuple(zip(*columns.values(), strict=True)), words=0)


def _reproduce(record: RunRecord) -> Iterator[Block]:
    run, population = record.config.get("command"), record.experts["population"]
    if not run:
        yield Paragraph(
            "This run was made by tj.randopt in a program; call it again with the options below."
        )
    else:
        yield Code(run)
    custom = [name for name in record.config["combines"] if name not in RULES]
    yield Paragraph(
        f"Every expert is made again from the root key {population.get('key')} "
        f"({population.get('prng')}), its id, σ and sign, which experts.json has for all of "
        "them. Other ensembles and one expert as a checkpoint come from this directory, RUN:"
    )
    kept = len(record.kept_tests())
    ks = ",".join(map(str, sorted({1, (kept + 1) // 2, kept})))
    lines = [] if custom or not kept else [f"thicket report RUN --k {ks}"]
    yield Code("\n".join([*lines, "thicket export RUN --rank 1 --to expert"]))


def _time(results: Mapping[str, Any]) -> Table:
    timing = results["timing"]
    stages = [(label, timing[name]) for name, label in STAGES.items() if timing[name]]
    rows = [(label, f"{short(value, 1 if value >= 10 else 2)} s") for label, value in stages]
    if timing["experts_per_s"]:
        rows.append(("experts per second", f"{timing['experts_per_s']:.3g}"))
    return Table(("", ""), tuple(rows or [("not measured", "—")]))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, value) of nested JSON, one row a leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
