"""`thicket run` and `thicket resume`."""

import dataclasses
import datetime
import pathlib
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from thicket_jax.cli import compiled, progress
from thicket_jax.cli.checks import check_machine, check_search
from thicket_jax.cli.machine import (
    facts_of,
    recorded,
    start_devices,
    stored_options,
    with_cache,
    without_paths,
    working,
)
from thicket_jax.cli.options import Machine, Out, Selection
from thicket_jax.cli.parsing import check_read, help_is_fine, parse, read_block_size, take_name
from thicket_jax.cli.report import print_table
from thicket_jax.errors import RunError
from thicket_jax.tasks import registry, task

if TYPE_CHECKING:
    from thicket_jax.experts.population import Population
    from thicket_jax.selection.rounds import Rule


def run(words: list[str]) -> None:
    """Runs a task into a new run directory."""
    with help_is_fine():
        name, rest = take_name(words, "run", f"a task ({', '.join(registry.REGISTRY)})")
        parsed = _parse(name, rest)
        from thicket_jax.selection import rules

        chosen, machine = parsed.selection, parsed.machine
        several = machine.distributed or machine.coordinator is not None
        together: Callable[[Callable[[], Any]], Any] = _alone
        if several:  # what one of them refuses alone would leave the others waiting for it
            check_machine(machine)
            start_devices(machine)
            from thicket_jax.search import agreement

            together = agreement.together
        rule = together(lambda: rules.check_rule(chosen.select, chosen.budget, chosen.delta))
        out = parsed.out.out
        if out is None:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            out = f"runs/{name}-{stamp}"
        options, run_dir = together(parsed.task.resolved), pathlib.Path(out)
        if several:
            agreement.check(facts_of(name, options, machine, rule))
        together(lambda: check_search(options, machine, rule))
        together(lambda: check_read(rest, options.unread()))
        command = shlex.join(["thicket", "run", *words])
        search_task(name, options, machine, run_dir, rule, command=command)


def _alone(action: Callable[[], Any]) -> Any:
    """What one process does by itself."""
    return action()


def run_options(name: str) -> type:
    """Returns the record of all options of `thicket run`, as four records of their own.

    Without a task's name they are those that every task has.
    """
    kind = registry.module(name).Options if name else task.Options
    # An outer record joins the task's options with the common ones into one flat list.
    joined = dataclasses.make_dataclass(
        "run",
        [("task", kind), ("selection", Selection), ("machine", Machine), ("out", Out)],
        frozen=True,
    )
    tasks = ", ".join(registry.REGISTRY)
    common = f"What every task takes; thicket run TASK --help says the rest. Tasks: {tasks}."
    joined.__doc__ = registry.REGISTRY[name][1] if name else common
    return joined


def _parse(name: str, words: list[str]) -> Any:
    """Reads the options of task `name`; without one, they are those that every task has."""
    import tyro

    prog = f"thicket run {name or 'TASK'}"
    return parse(Annotated[run_options(name), tyro.conf.OmitArgPrefixes], words, prog)


def resume(words: list[str]) -> None:
    """Goes on with an interrupted run."""
    from thicket_jax.runs import digests, files, log
    from thicket_jax.search import manifest

    with help_is_fine():
        folder, rest = take_name(words, "resume", "a run directory")
        machine = parse(Machine, rest, "thicket resume RUN")
        run_dir = pathlib.Path(folder)
        log.check_born(run_dir)
        config = files.read_json(run_dir / "config.json", ("task", "options"))
        manifest.check_unfinished(run_dir)
        digests.check_unfinished(run_dir)
        options, rule = stored_options(run_dir, config), _stored_rule(run_dir, config)
        command = config.get("command", "")
        stored = config["options"]
        check_machine(machine)
        search_task(config["task"], options, machine, run_dir, rule, stored=stored, command=command)


def _stored_rule(run_dir: pathlib.Path, config: dict[str, Any]) -> "Rule | None":
    """Rebuilds how experts are selected from config.json; None for every expert on everything."""
    from thicket_jax.selection import rules

    try:
        return rules.from_json(config["select"]) if "select" in config else None
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{run_dir / 'config.json'} has a selection that this release does not know: {error}"
        ) from None


def search_task(
    name: str,
    options: Any,
    machine: Machine,
    run_dir: pathlib.Path,
    rule: "Rule | None" = None,
    *,
    stored: dict[str, Any] | None = None,
    command: str = "",
) -> None:
    """Searches around a task's base, writes the run directory and prints the table.

    Args:
      name: of the task.
      options: the task's, resolved and checked.
      machine: where and how it runs; devices are started if they are not.
      run_dir: a new directory, or with `stored` that of an interrupted run.
      rule: selects in rounds; None scores every expert on everything.
      stored: to go on with what the log has, the options as config.json has them.
      command: the words that made the run, for its report.

    Raises:
      KeyboardInterrupt: with words on how to go on, if anything is kept.
    """
    resume = stored is not None
    block_size = read_block_size(machine.block_size)
    start_devices(machine)
    import jax

    from thicket_jax.mapping.placement import place
    from thicket_jax.runs import files
    from thicket_jax.search import agreement, pipeline

    agreement.check({**facts_of(name, options, machine, rule), "resume": resume})
    if not resume:
        pipeline.on_first(lambda: _check_place(run_dir), None)
    first = jax.process_index() == 0
    experts = agreement.together(lambda: _population(options))
    tell = progress.quiet if machine.quiet or not first else progress.say
    placed = with_cache(options)
    if options.cache is not None:
        folder = placed.cache_folder()
        agreement.together(lambda: files.check_place(folder, "; name another with --cache"))
    tally = compiled.keep(placed.cache_folder()) if machine.compile_cache else None
    began = time.monotonic()
    module = registry.module(name)
    with progress.Progress(tell) as shown:
        shown.phase(f"{name}: preparing the base model and the data")
        built = agreement.together(lambda: module.build(placed, shown.phase))
    setup = time.monotonic() - began
    about = {
        "task": name,
        "model": without_paths(built.model),
        "options": recorded(options.to_json(), run_dir) if stored is None else stored,
        "notes": without_paths(built.notes),
        "command": without_paths(command),
        "task_provenance": without_paths(built.provenance),
    }
    tell(f"{name}: base ready in {setup:.1f} s; the run is {run_dir}")
    hint = f"what is scored is kept; go on with: thicket resume {run_dir}"
    try:
        with working(hint), progress.Progress(tell) as shown:
            settings = pipeline.Settings(
                k=tuple(options.k),
                placement=place(
                    built.problem.params,
                    backend=machine.backend,
                    block_size=block_size,
                    stream=machine.stream,
                ),
                run_dir=run_dir,
                resume=resume,
                on_progress=shown,
                on_phase=shown.phase,
                draw=getattr(module, "draw", None),
                setup_seconds=setup,
                rule=rule,
            )
            found = pipeline.execute(built.problem, experts, settings, about)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (hint,) if (run_dir / "config.json").exists() else ()
        raise
    finally:
        if built.close is not None:
            built.close()
    if tally is not None and tally.asked:
        tell(f"{name}: {tally.line()}")
    if first:
        print_table(found.table, run_dir)


def _check_place(run_dir: pathlib.Path) -> None:
    """Raises `RunError` where no run directory can be made."""
    from thicket_jax.runs import files, log

    log.check_new(run_dir)
    files.check_place(run_dir)


def _population(options: Any) -> "Population":
    """The experts that a task's options ask for."""
    import jax

    from thicket_jax.experts.population import population

    return population(
        jax.random.key(options.seed, impl=options.prng),
        options.num,
        options.sigma,
        noise=options.law(),
        antithetic=options.antithetic,
    )
