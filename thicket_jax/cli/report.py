"""`thicket report`, and the table that a finished run prints."""

import pathlib
from typing import Any

from thicket_jax.cli import progress
from thicket_jax.cli.machine import tell_of_digests
from thicket_jax.cli.options import ReportOptions
from thicket_jax.cli.parsing import combine_names, help_is_fine, parse, take_name
from thicket_jax.tasks import registry


def print_table(table: dict[str, Any], run_dir: pathlib.Path) -> None:
    """Prints base, best and ensembles in the metric's unit, and where the report is."""
    from thicket_jax.reports.numbers import joined_rounds

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    better = "higher" if table["higher_is_better"] else "lower"
    print(f"{table['task']}: {table['metric']} ({better} is better)")
    print(f"  {'':28} {'train':>9} {'test':>9}  difference to base (95 %)")
    base, best = table["base"], table["best"]
    print(f"  {'base':28} {number(base['train']):>9} {number(base['test']):>9}")
    label = f"best expert (id {best['id']})"
    print(f"  {label:28} {number(best['train']):>9} {number(best['test']):>9}")
    for row in table["ensemble"]:
        label = f"ensemble of {row['k']}, {row['combine']}"
        low, high = row["delta_ci95"] or (None, None)
        change = f"{number(row['delta_vs_base'])} [{number(low)}, {number(high)}]"
        print(f"  {label:28} {'':>9} {number(row['test']):>9}  {change}")
    if table["failed"]:
        print(f"  failed experts: {table['failed']}")
    if "selection" in table:
        found = table["selection"]
        rounds = joined_rounds(found["rounds"])
        steps = ", ".join(f"{r['experts']} to {r['stop']}" for r in rounds)
        share = f"{100 * found['share']:.1f} % of all outcomes"
        print(f"  {found['rule']}: {share} (experts to item: {steps})")
        if found["guarantee"]:
            print(f"  {found['guarantee']['sentence']}")
    print(f"report: {run_dir / 'report.html'}")


def report(words: list[str]) -> None:
    """Writes tables and figures of a run again, from its log alone."""
    with help_is_fine():
        folder, rest = take_name(words, "report", "a run directory")
        _write(pathlib.Path(folder), parse(ReportOptions, rest, "thicket report RUN"))


def _write(run_dir: pathlib.Path, options: ReportOptions) -> None:
    from thicket_jax.reports import report, results
    from thicket_jax.runs import digests, record

    read = record.load(run_dir, besides=digests.REPORT[1:])
    tell_of_digests(run_dir, progress.say)
    table = results.build_results(read, ks=options.k, combine=combine_names(options.vote))
    name = read.config["task"]
    draw = getattr(registry.module(name), "draw", None) if name in registry.REGISTRY else None
    report.write(read, run_dir, table, draw=draw)
    print_table(table, run_dir)
