"""The sections of a report that only runs with read answers have: baselines, form and reasoning."""

from collections.abc import Iterator, Mapping
from typing import Any

from thicket_jax.reports.documents import Block, Heading, Paragraph, Table
from thicket_jax.reports.numbers import difference, experts_label, measured, rule_label, short
from thicket_jax.runs.record import RunRecord

_NAMES = {
    "base": "base, greedy",
    "self_consistency": "self-consistency, {k} of the base's samples",
    "random_control": "random control, {k} unselected",
    "best_single": "best single expert",
}
_PARTS = {
    "reasons_better": "reasons better",
    "format_only": "format only",
    "regressed": "regressed",
}


def equal_inference(record: RunRecord, results: Mapping[str, Any]) -> Iterator[Block]:
    """Yields the section on what the same inference buys otherwise, if the run has the answers."""
    rows = results.get("baselines")
    if not rows:
        return
    yield Heading("Equal-inference baselines")
    rules = list(dict.fromkeys(row["combine"] for row in rows))
    yield _compared(results, rules[:1])
    weighted = " A weighted vote weighs both equally, as neither has scores on train items."
    yield Paragraph(
        "The base and the best single expert cost one answer an item; self-consistency (K samples "
        f"of the base{_sampling(record)}, with the ensemble's vote) and the random control (K "
        "experts drawn at the kept experts' sigmas that nobody selected, with the same vote) cost "
        "K, as the ensemble does. Differences are paired over the same test items."
        + (weighted if "weighted_vote" in rules else "")
    )
    if rules[1:]:
        yield _compared(results, rules[1:], folded="The same for other votes")


def _compared(results: Mapping[str, Any], rules: list[str], folded: str = "") -> Table:
    """For every K a row of the ensemble, and under it what it is compared with."""
    cells: list[tuple[str, str, str, str]] = []
    for ensemble in results["ensemble"]:
        if ensemble["combine"] not in rules:
            continue
        name = f"{experts_label(ensemble['k'])}, {rule_label(ensemble['combine'])}"
        cells.append((name, measured(ensemble["test"], ensemble["stderr"])[0], "", ""))
        for row in results["baselines"]:
            if (row["k"], row["combine"]) != (ensemble["k"], ensemble["combine"]):
                continue
            better = difference(row["ensemble_minus_baseline"], row["ensemble_minus_ci95"])
            test, _ = measured(row["test"], row["stderr"])
            cells.append((f"— {_NAMES[row['name']].format(k=row['k'])}", test, *better))
    head = ("", f"test {results['metric']}", "ensemble minus it", "95 % interval")
    return Table(head, tuple(cells), folded=folded)


def _sampling(record: RunRecord) -> str:
    """How the base was sampled, as the task says it."""
    found = record.config.get("task_provenance", {}).get("sampling", {})
    if not isinstance(found, Mapping) or not found:
        return ""
    return " at " + ", ".join(f"{name.replace('_', ' ')} {found[name]}" for name in found)


def form_and_reasoning(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yields the section on what the gain is made of, if answers were read in two ways."""
    found = results.get("gains")
    if not found:
        return
    yield Heading("Format and reasoning")
    cells = []
    for row in found["rows"]:
        name = "best single expert"
        if row["name"] == "ensemble":
            name = f"{experts_label(row['k'])}, {rule_label(row['combine'])}"
        parts = [f"{short(row[x]['points'], 1)} ({row[x]['count']:,})" for x in _PARTS]
        cells.append((name, *parts))
    yield Table(("points (items)", *_PARTS.values()), tuple(cells))
    base, kept = found["base"], found["kept"]
    strict, flexible = (f"{100 * base[name]:.1f} %" for name in ("strict", "flexible"))
    theirs, loosely = (f"{100 * kept[name]:.1f} %" for name in ("strict", "flexible"))
    yield Paragraph(
        f"Of {found['items']:,} test items, the base has {strict} right when its answer must have "
        f"the form that was asked for (strict) and {flexible} when any answer that can be found "
        f"counts (flexible); the kept experts have {theirs} and {loosely} on average. Reasons "
        "better: the base was wrong in both readings, and the answer is right now. Format only: "
        "the base was right but not in form, and the answer is right now. Regressed: the base was "
        "right in form, and the answer is wrong now. Points are per 100 items."
    )
