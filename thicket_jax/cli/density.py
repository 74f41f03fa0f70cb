"""`thicket density`: one population on several tasks, each a run of its own, and their page."""

import dataclasses
import datetime
import math
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from thicket_jax.cli import progress
from thicket_jax.cli.checks import check_search
from thicket_jax.cli.machine import (
    start_devices,
    stored_options,
    tell_of_digests,
    with_cache,
    working,
)
from thicket_jax.cli.options import Machine
from thicket_jax.cli.parsing import asks_help, check_read, given, help_is_fine, parse, repeated
from thicket_jax.cli.run import search_task
from thicket_jax.errors import ArgumentError, RunError, check_word
from thicket_jax.runs import digests, files
from thicket_jax.tasks import registry

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
POPULATION += ("rounded", "where", "antithetic", "prng", "seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityOptions:
    """What `thicket density` takes beside the tasks' own options."""

    margins: tuple[float, ...] = (0.0,)
    """Margins over the base's score at which density is tabled, in the unit of the scores."""
    out: str | None = None
    """Directory of the runs, one folder a task; an interrupted one goes on. Default
    runs/density-DATE-TIME."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be surveyed: name → task, name → the task's options, and how and where it runs."""

    named: Mapping[str, str]
    options: Mapping[str, Any]
    machine: Machine
    margins: tuple[float, ...]
    out: pathlib.Path
    command: str


def density(words: list[str]) -> None:
    """Runs what has not run of several tasks, and says what all say together."""
    with help_is_fine():
        if asks_help(words):
            print(USAGE, end="")
            return
        request = _read(words)
        start_devices(request.machine)
        for line in _survey(request):
            progress.show(line)


_Options = list[list[str]]  # each an option and its values, as they were typed


def _split_tasks(words: list[str]) -> tuple[dict[str, str], _Options, dict[str, _Options]]:
    """Reads TASK or NAME=TASK ..., options for all, and options --NAME.OPTION for one.

    Returns:
      (name → task, options for every task, name → options for it alone).
    """
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    named: dict[str, str] = {}
    for word in words[:count]:
        name, _, task = word.rpartition("=")
        check_word("task", task, registry.REGISTRY)
        if (name or task) in named:
            raise ArgumentError(
                f"{name or task} is there twice; give one of them a name: other={task}"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name if "=" in word else task):
            raise ArgumentError(f"name {name!r} must be of letters, digits, - and _")
        named[name or task] = task
    if not named:
        raise ArgumentError("thicket density needs tasks first; see thicket density --help")
    common: _Options = []
    own: dict[str, _Options] = {name: [] for name in named}
    place = common
    for word in words[count:]:
        if place and not word.startswith("--"):
            place[-1].append(word)
            continue
        name, dot, _ = word.removeprefix("--").partition(".")
        place = common
        if dot and "=" not in name:
            if name not in own:
                raise ArgumentError(f"{word} names {name!r}, which is none of: {', '.join(named)}")
            place = own[name]
        place.append([word])
    return named, common, own


def _words_for(name: str, common: _Options, own: _Options) -> list[str]:
    """The words of a task: its own options, and those for every task that it has not itself."""
    mine = {option.rpartition(".")[2] for option in given(_flat(own))}
    theirs = [option for option in common if mine.isdisjoint(given(option))]
    return _flat(theirs) + _flat([[f"--{o[0][len(name) + 3 :]}", *o[1:]] for o in own])


def _flat(options: _Options) -> list[str]:
    return [word for option in options for word in option]


def _check_read(
    common: _Options, own: Mapping[str, _Options], unread: Mapping[str, Mapping[str, str]]
) -> None:
    """Raises `ArgumentError` where an option is given that no task reads, or not its own one."""
    first = next(iter(own))
    for name, options in own.items():
        unread_here = dict(unread[name])
        if name != first:
            why = f"makes an expert, and the experts are those of {first}"
            unread_here |= dict.fromkeys(POPULATION, why)
        check_read(_flat(options), {f"{name}.{option}": why for option, why in unread_here.items()})
    shared = set.intersection(*(set(each) for each in unread.values()))
    nowhere = {option: unread[first][option] for option in shared}
    theirs = [{option.rpartition(".")[2] for option in given(_flat(each))} for each in own.values()]
    for option in set.intersection(*theirs):
        nowhere[option] = "is given to every task by itself too"
    check_read(_flat(common), nowhere)


def _read(words: list[str]) -> Request:
    """Reads the words after `thicket density`; an `ArgumentError` for what cannot be."""
    import tyro

    named, common, own = _split_tasks(words)
    options: dict[str, Any] = {}
    machine, about = None, None
    tasks = [registry.module(task).Options for task in named.values()]
    given(_flat(common), set().union(*map(repeated, tasks)))
    for name, task in named.items():
        kinds = registry.module(task).Options, Machine, DensityOptions
        parts = list(zip(("task", "machine", "about"), kinds, strict=True))
        kind = dataclasses.make_dataclass("density", parts, frozen=True)
        rest = _words_for(name, common, own[name])
        parsed = parse(Annotated[kind, tyro.conf.OmitArgPrefixes], rest, "thicket density")
        mine = parsed.task.resolved()
        if not options:
            machine, about = parsed.machine, parsed.about  # of all tasks alike
            first = {field: getattr(mine, field) for field in POPULATION}
        options[name] = dataclasses.replace(mine, **first)
    assert machine is not None and about is not None
    if machine.distributed or machine.coordinator is not None:
        raise ArgumentError(
            "thicket density runs in one process; run the tasks with thicket run into one folder "
            "each of --out, and thicket density reads them"
        )
    for each in options.values():
        check_search(each, machine)
    unread = {name: each.unread() for name, each in options.items()}
    _check_read(common, own, unread)
    if not about.margins or not all(math.isfinite(margin) for margin in about.margins):
        listed = ",".join(str(margin) for margin in about.margins)
        raise ArgumentError(f"--margins {listed!r} must be finite numbers, such as 0,0.05")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = pathlib.Path(about.out or f"runs/density-{stamp}")
    command = shlex.join(["thicket", "density", *words])
    return Request(named, options, machine, about.margins, out, command)


def _survey(request: Request) -> Iterator[str]:
    """Runs the tasks that have not run, writes what all say together; yields it as lines."""
    from thicket_jax.analysis import survey
    from thicket_jax.reports import survey_page
    from thicket_jax.runs import record

    tell = progress.quiet if request.machine.quiet else progress.say
    files.check_place(request.out)
    waiting = [name for name in request.named if not _finished(request, name)]
    _rehearse(request, waiting, tell)
    for name, task in request.named.items():
        place = request.out / name
        if name not in waiting:
            tell(f"{name}: {place} is finished")
            continue
        tell(f"{name}: {task} into {place}")
        config = place / "config.json"
        stored = files.read_json(config, ("options",))["options"] if config.exists() else None
        options, command = request.options[name], request.command
        try:
            search_task(task, options, request.machine, place, stored=stored, command=command)
        except KeyboardInterrupt as interrupt:
            hint = f"what is scored is kept; go on with the same command and --out {request.out}"
            interrupt.args = (hint,) if request.out.is_dir() else ()
            raise
    records = {name: record.load(request.out / name) for name in request.named}
    for name in request.named:
        tell_of_digests(request.out / name, tell)
    found = survey.measure(records, request.margins)
    with working("every task is scored; the same command makes the page again"):
        survey_page.write(found, request.out)
    yield from survey_page.lines(found)
    yield f"report: {request.out / 'report.html'}"


def _rehearse(request: Request, waiting: Sequence[str], tell: progress.Say) -> None:
    """Builds every task that is to run, so that a mistake in the last one costs no scoring."""
    from thicket_jax.analysis import survey

    if len(request.named) < 2 or not waiting:
        return
    prints = {}
    for name, task in request.named.items():
        if name not in waiting:
            config = files.read_json(request.out / name / "config.json", ("fingerprints",))
            prints[name] = config["fingerprints"]["params"]
            continue
        with progress.Progress(tell, name=name) as shown:
            shown.phase("looking at its base model and data")
            options = with_cache(request.options[name])
            built = registry.module(task).build(options, shown.phase)
        if built.close is not None:
            built.close()
        prints[name] = files.fingerprint(built.problem.params)
    survey.check_bases(prints)


def _finished(request: Request, name: str) -> bool:
    """Whether a task has run; a finished run of something else is a `RunError`."""
    place = request.out / name
    if not digests.is_finished(place):
        return False
    stored = files.read_json(place / "config.json")
    wanted = {"task": request.named[name], "options": request.options[name].to_json()}
    found = {"task": stored["task"], "options": stored_options(place, stored).to_json()}
    other = files.differences(found, wanted)
    if other:
        raise RunError(f"{place} is another run: {other[0]}; use another --out")
    return True
