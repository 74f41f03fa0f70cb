"""What `thicket density` is asked and does: one population on several tasks, and their page."""

import dataclasses
import datetime
import math
import pathlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from thicket_jax.analysis import survey
from thicket_jax.cli.options import Machine
from thicket_jax.cli.parsing import parse
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.reports import survey_page
from thicket_jax.runs import files
from thicket_jax.runs import record as run_record
from thicket_jax.tasks import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityOptions:
    """What `thicket density` takes beside the tasks' own options."""

    margins: tuple[float, ...] = (0.0,)
    """Margins over the base's score at which density is tabled, in the unit of the scores."""
    out: str | None = None
    """Directory of the runs, one folder a task; an interrupted one goes on. Default
    runs/density-DATE-TIME."""


def split_tasks(
    words: list[str], known: tuple[str, ...]
) -> tuple[dict[str, str], list[str], dict[str, list[str]]]:
    """Reads TASK or NAME=TASK ..., options for all, and options --NAME.OPTION for one.

    Returns:
      (name → task, words for every task, name → words for it alone).
    """
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    named: dict[str, str] = {}
    for word in words[:count]:
        name, _, task = word.rpartition("=")
        if task not in known:
            raise ArgumentError(f"unknown task {task!r}; choose one of: {', '.join(known)}")
        if (name or task) in named:
            raise ArgumentError(
                f"{name or task} is there twice; give one of them a name: other={task}"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name if "=" in word else task):
            raise ArgumentError(f"name {name!r} must be of letters, digits, - and _")
        named[name or task] = task
    if not named:
        raise ArgumentError("thicket density needs tasks first; see thicket density --help")
    common: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in named}
    place = common
    for word in words[count:]:
        if word.startswith("--"):
            name, dot, option = word[2:].partition(".")
            place = common
            if dot and "=" not in name:
                if name not in own:
                    raise ArgumentError(
                        f"{word} names {name!r}, which is none of: {', '.join(named)}"
                    )
                place, word = own[name], f"--{option}"
        place.append(word)
    return named, common, own


USAGE = """\
usage: thicket density TASK ... [options]

  thicket density gsm8k countdown --model DIR --num 500 --sigma 0.001,0.002 --gsm8k.data gsm8k
  thicket density line=signals wave=signals --line.target line --wave.target sinusoid

  One population, scored on several tasks: how dense solutions are, how differently the tasks order
  the experts, how much of that is item noise. NAME=TASK gives a task another name, so that one
  task can be there twice. An option --NAME.OPTION is for that task alone, all others are for every
  task (thicket run TASK --help). What makes an expert (num, sigma, noise, seed, ...) is the first
  task's for all. Also --margins 0,0.05 (over the base's score) and --out DIR, which goes on where
  it stopped.
"""
# What makes an expert; equal for all tasks of one population.
POPULATION: tuple[str, ...] = ("num", "sigma", "noise", "rank", "factors", "scale", "masses")
POPULATION += ("where", "antithetic", "prng", "seed")

Search = Callable[..., None]
"""Runs one task: (task, options, rule, machine, run directory, resume, command)."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be surveyed: name → task, name → the task's options, and how and where it runs."""

    named: Mapping[str, str]
    options: Mapping[str, Any]
    machine: Machine
    margins: tuple[float, ...]
    out: pathlib.Path
    command: str


def read(words: Sequence[str]) -> Asked:
    """Reads the words after `thicket density`; an `ArgumentError` for what cannot be."""
    import tyro

    named, common, own = split_tasks(list(words), tuple(registry.REGISTRY))
    options: dict[str, Any] = {}
    machine, about = None, None
    for name, task in named.items():
        kind = dataclasses.make_dataclass(
            "density",
            [
                ("task", registry.module(task).Options),
                ("machine", Machine),
                ("about", DensityOptions),
            ],
            frozen=True,
        )
        rest = [*common, *own[name]]
        parsed = parse(Annotated[kind, tyro.conf.OmitArgPrefixes], rest, "thicket density")
        mine = parsed.task.resolved()
        if not options:
            machine, about = parsed.machine, parsed.about
            first = {field: getattr(mine, field) for field in POPULATION}
        options[name] = dataclasses.replace(mine, **first)
    assert machine is not None and about is not None
    if machine.distributed or machine.coordinator is not None:
        raise ArgumentError(
            "thicket density runs in one process; run the tasks with thicket run into one folder "
            "each of --out, and thicket density reads them"
        )
    if not about.margins or not all(math.isfinite(margin) for margin in about.margins):
        listed = ",".join(str(margin) for margin in about.margins)
        raise ArgumentError(f"--margins {listed!r} must be finite numbers, such as 0,0.05")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = pathlib.Path(about.out or f"runs/density-{stamp}")
    command = shlex.join(["thicket", "density", *words])
    return Asked(named, options, machine, about.margins, out, command)


def execute(asked: Asked, search: Search, say: Callable[[str], None]) -> Iterator[str]:
    """Runs the tasks that have not run, writes what all say together; yields it as lines."""
    waiting = [name for name in asked.named if not _finished(asked, name)]
    _rehearse(asked, waiting, say)
    for name, task in asked.named.items():
        place = asked.out / name
        if name not in waiting:
            say(f"{name}: {place} is finished")
            continue
        say(f"{name}: {task} into {place}")
        began = (place / "config.json").exists()
        try:
            search(task, asked.options[name], None, asked.machine, place, began, asked.command)
        except KeyboardInterrupt:
            hint = f"what is scored is kept; go on with the same command and --out {asked.out}"
            raise KeyboardInterrupt(hint if asked.out.is_dir() else "") from None
    records = {name: run_record.load(asked.out / name) for name in asked.named}
    found = survey.measure(records, asked.margins)
    survey_page.write(found, asked.out)
    yield from survey_page.lines(found)
    yield f"report: {asked.out / 'report.html'}"


def _rehearse(asked: Asked, waiting: Sequence[str], say: Callable[[str], None]) -> None:
    """Builds every task that is to run, so that a mistake in the last one costs no scoring."""
    from thicket_jax.search import pipeline

    if len(asked.named) < 2 or not waiting:
        return
    for name in waiting:
        pipeline.check_ks(asked.options[name].k, asked.options[name].num)
    prints = {}
    for name, task in asked.named.items():
        if name not in waiting:
            config = files.read_json(asked.out / name / "config.json")
            prints[name] = config["fingerprints"]["params"]
            continue
        say(f"{name}: looking at its base model and data")
        built = registry.module(task).build(asked.options[name])
        if built.close is not None:
            built.close()
        prints[name] = files.fingerprint(built.params)
    survey.check_bases(prints)


def _finished(asked: Asked, name: str) -> bool:
    """Whether a task has run; a finished run of something else is a `RunError`."""
    place = asked.out / name
    if not (place / "results.json").exists():
        return False
    stored = files.read_json(place / "config.json")
    wanted = {"task": asked.named[name], "options": asked.options[name].to_json()}
    other = files.differences({key: stored.get(key) for key in wanted}, wanted)
    if other:
        raise RunError(f"{place} is another run: {other[0]}; use another --out")
    return True
