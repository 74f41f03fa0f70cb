"""`thicket report`, and the table that a finished run prints."""

import pathlib
import sys
from typing import Any

from thicket_jax.cli import progress
from thicket_jax.cli.machine import tell_of_digests, working
from thicket_jax.cli.options import ReportOptions
from thicket_jax.cli.parsing import combine_names, help_is_fine, parse, take_name
from thicket_jax.errors import ArgumentError
from thicket_jax.search.problem import check_ks
from thicket_jax.tasks import registry


def print_table(table: dict[str, Any], run_dir: pathlib.Path) -> None:
    """Prints base, best and ensembles in the metric's unit, and where the report is."""
    from thicket_jax.reports.numbers import joined_rounds

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    better = "higher" if table["higher_is_better"] else "lower"
    progress.show(f"{table['task']}: {table['metric']} ({better} is better)")
    progress.show(f"  {'':28} {'train':>9} {'test':>9}  difference to base (95 %)")
    base, best = table["base"], table["best"]
    progress.show(f"  {'base':28} {number(base['train']):>9} {number(base['test']):>9}")
    label = f"best expert (id {best['id']})"
    progress.show(f"  {label:28} {number(best['train']):>9} {number(best['test']):>9}")
    for row in table["ensemble"]:
        label = f"ensemble of {row['k']}, {row['combine']}"
        low, high = row["delta_ci95"] or (None, None)
        change = f"{number(row['delta_vs_base'])} [{number(low)}, {number(high)}]"
        progress.show(f"  {label:28} {'':>9} {number(row['test']):>9}  {change}")
    if table["failed"]:
        progress.show(f"  failed experts: {table['failed']}")
    if "timed_out" in table:
        late = table["timed_out"]
        progress.show(
            f"  answers that ran into the time limit: {late['train']} train, {late['test']} test"
        )
    if "selection" in table:
        found = table["selection"]
        rounds = joined_rounds(found["rounds"])
        steps = ", ".join(f"{r['experts']} to {r['stop']}" for r in rounds)
        share = f"{100 * found['share']:.1f} % of all outcomes"
        progress.show(f"  {found['rule']}: {share} (experts to item: {steps})")
        if found["guarantee"]:
            progress.show(f"  {found['guarantee']['sentence']}")
    progress.show(f"report: {run_dir / 'report.html'}")


def report(words: list[str]) -> None:
    """Writes tables and figures of a run again, from its log alone."""
    with help_is_fine():
        folder, rest = take_name(words, "report", "a run directory")
        options = parse(ReportOptions, rest, "thicket report RUN")
        if options.k is not None:
            check_ks(options.k, sys.maxsize)  # the run says how many there are
        _write(pathlib.Path(folder), options)


def _check_other(to: pathlib.Path) -> None:
    """Raises `ArgumentError` where a report would lie in a folder of something else."""
    if (to / "config.json").exists() or (to.exists() and not to.is_dir()):
        raise ArgumentError(f"--to {to} is a file or another run; name a folder for the report")


def _write(run_dir: pathlib.Path, options: ReportOptions) -> None:
    """Writes the report into the run's directory, or into another folder."""
    from thicket_jax.reports import report, results
    from thicket_jax.runs import digests, files, record

    rules = combine_names(options.vote)
    to = run_dir if options.to is None else pathlib.Path(options.to)
    if options.to is not None:
        _check_other(to)
    files.check_place(to, "; a run that is read-only is reported with --to DIR")
    read = record.load(run_dir, besides=digests.REPORT[1:] if to == run_dir else ())
    tell_of_digests(run_dir, progress.say)
    if rules and not read.gradable:
        raise ArgumentError(
            "--vote is of no use: this run kept no graded test answers; leave it out"
        )
    table = results.build_results(read, ks=options.k, combine=rules)
    name = read.config["task"]
    draw = getattr(registry.module(name), "draw", None) if name in registry.REGISTRY else None
    with working(f"the log of {run_dir} is as it was"):
        to.mkdir(parents=True, exist_ok=True)
        report.write(read, to, table, draw=draw, landscapes_of=run_dir)
    print_table(table, to)
