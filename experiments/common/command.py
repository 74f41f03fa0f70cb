"""`python -m experiments.NAME`: what every experiment does, given what is its own.

Options → cells to measure → those that the table lacks, one by one → judged → shown, in files, in
the README and in the terminal.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.common import machine
from experiments.common.readme import replace_between
from experiments.common.table import Layout, Table, open_table, read_table
from thicket_jax.errors import ArgumentError, RunError, ThicketError, check_count

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1]
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Attributes:
      name: entries that its records have, and no other cell's: by them it is found in the table.
      measure: returns its record, or its records; JSON values.
      part: the list of the table that they go to.
    """

    name: Mapping[str, Any]
    measure: Callable[[], Record | list[Record]]
    part: str = "runs"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the options ask for.

    Attributes:
      settings: identify the table: nothing else decides what a cell of one name measures.
      cells: in the order in which they are measured.
      prepare: is given the missing cells, if there are any, before the first is measured.
    """

    settings: Mapping[str, Any]
    cells: Sequence[Cell]
    prepare: Callable[[Sequence[Cell]], None] | None = None


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a table looks like.

    Attributes:
      texts: Markdown, by the name of its markers in the README; together they are table.md.
      lines: what came out, for the terminal.
      figures: names of the pictures that were drawn.
    """

    texts: Mapping[str, str]
    lines: Sequence[str] = ()
    figures: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One question, and what is its own about it.

    Attributes:
      name: of its folder.
      quick: what its quick form measures, for the help.
      arguments: adds its own options to the parser.
      plan: (options, a folder that is removed at the end) → what to measure; options that cannot
        work are errors here, before anything is written.
      describe: (cell, its records) → lines for the terminal.
      judge: the table's entries → entries that it gets, such as verdicts.
      present: (the table's entries, folder) → what is shown, its pictures drawn into the folder.
      seeds: how many of everything, 1 in the quick form; None leaves it to the experiment.
      layout: of its table.
    """

    name: str
    quick: str
    arguments: Callable[[argparse.ArgumentParser], None]
    plan: Callable[[argparse.Namespace, pathlib.Path], Plan]
    describe: Callable[[Cell, list[Record]], list[str]]
    judge: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    present: Callable[[Mapping[str, Any], pathlib.Path], Shown]
    seeds: int | None = 3
    layout: Layout = dataclasses.field(default_factory=Layout)


def main(experiment: Experiment, words: Sequence[str] | None = None) -> int:
    """Measures what is missing from the table, judges it and shows it; returns the exit code."""
    options = _parser(experiment).parse_args(words)
    return exit_code(experiment.name, lambda: _run(experiment, options))


def exit_code(name: str, run: Callable[[], int]) -> int:
    """Returns what `run` does; an error on purpose is one line on stderr, and 2."""
    try:
        return run()
    except ThicketError as error:
        print(f"experiments.{name}: {error}", file=sys.stderr)
        return 2


def parser(name: str, quick: str, files: str, draws: bool = True) -> argparse.ArgumentParser:
    """Returns a parser with `--out` and `--quick`.

    Args:
      name: of the folder in experiments/.
      quick: what the quick form does.
      files: what is written into the folder.
      draws: whether there is `--draw`, too.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=f"Runs the experiment; see experiments/{name}/README.md.",
    )
    made.add_argument("--out", help=f"folder for {files}; default results/ beside its README")
    one = made.add_mutually_exclusive_group()
    one.add_argument(
        "--quick",
        action="store_true",
        help=f"{quick}, into a temporary folder: shows that it runs",
    )
    if draws:
        one.add_argument(
            "--draw",
            action="store_true",
            help="run nothing: tables and figures from table.json again",
        )
    return made


def results_folder(name: str, options: argparse.Namespace) -> pathlib.Path:
    """Returns the folder of the results: named, temporary, or the experiment's own."""
    if options.out:
        return pathlib.Path(options.out)
    if options.quick:
        return pathlib.Path(tempfile.mkdtemp(prefix=f"experiments-{name}-"))
    return own_folder(name)


def own_folder(name: str) -> pathlib.Path:
    """Returns the folder beside the README, which shows what is in it."""
    return EXPERIMENTS / name / "results"


def make_folder(folder: pathlib.Path) -> None:
    """Makes a folder, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"--out {folder} cannot be made ({error.strerror}); name another folder"
        ) from None


def into_readme(name: str, texts: Mapping[str, str]) -> None:
    """Writes texts between their markers in the README."""
    for marker, text in texts.items():
        replace_between(EXPERIMENTS / name / "README.md", marker, text)


def say(line: str) -> None:
    """Prints a line at once, also where the output is a file."""
    print(line, flush=True)


def _parser(experiment: Experiment) -> argparse.ArgumentParser:
    made = parser(experiment.name, experiment.quick, "table.json, table.md and figures")
    default = "each case has its own number"
    if experiment.seeds is not None:
        default = f"{experiment.seeds}, or 1 if quick"
    made.add_argument(
        "--seeds", type=int, help=f"seeds 0, 1, ... of everything; default: {default}"
    )
    experiment.arguments(made)
    return made


def _run(experiment: Experiment, options: argparse.Namespace) -> int:
    began = time.monotonic()
    machine.start_devices()
    if options.seeds is not None:
        check_count("seeds", options.seeds)
    elif experiment.seeds is not None:
        options.seeds = 1 if options.quick else experiment.seeds
    if options.draw:
        folder = results_folder(experiment.name, options)
        table = read_table(folder / "table.json", experiment.layout)
    else:
        with tempfile.TemporaryDirectory(prefix=f"experiments-{experiment.name}-work-") as work:
            plan = experiment.plan(options, pathlib.Path(work))
            folder = results_folder(experiment.name, options)
            make_folder(folder)
            table = open_table(folder / "table.json", experiment.layout, plan.settings)
            _measure(experiment, plan, table, began)
    return _show(experiment, table, folder)


def _measure(experiment: Experiment, plan: Plan, table: Table, began: float) -> None:
    """Measures the cells that the table lacks; it is written after each."""
    missing = [cell for cell in plan.cells if not table.has(cell.part, cell.name)]
    have = len(plan.cells) - len(missing)
    say(f"{have} of {len(plan.cells)} {experiment.layout.noun} are in {table.place}")
    if missing and plan.prepare is not None:
        plan.prepare(missing)
    for count, cell in enumerate(missing, 1):
        found = cell.measure()
        records = [{**cell.name, **x} for x in (found if isinstance(found, list) else [found])]
        now = time.monotonic()
        added = table.append(cell.part, records, machine.provenance(), now - began)
        began = now
        for line in experiment.describe(cell, added):
            say(f"[{count}/{len(missing)}] {line}")


def _show(experiment: Experiment, table: Table, folder: pathlib.Path) -> int:
    """Judges the table, and writes it with its Markdown and its figures."""
    empty = [part for part in experiment.layout.records if not table.entries[part]]
    if empty:
        raise RunError(f"{table.place} has no {' and no '.join(empty)} yet: nothing can be shown")
    table.entries.update(experiment.judge(table.entries))
    table.write()
    shown = experiment.present(table.entries, folder)
    (folder / "table.md").write_text("\n\n".join(shown.texts.values()) + "\n")
    if folder.resolve() == own_folder(experiment.name):
        into_readme(experiment.name, shown.texts)
    for line in shown.lines:
        say(line)
    *others, last = ["table.md", *shown.figures]
    say(f"wrote {', '.join([str(table.place), *others])} and {last}")
    return 0
