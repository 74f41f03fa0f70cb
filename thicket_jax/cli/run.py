"""`thicket run` and `thicket resume`."""

import dataclasses
import datetime
import pathlib
import shlex
import time
from typing import TYPE_CHECKING, Annotated, Any

from thicket_jax.cli import compiled
from thicket_jax.cli.machine import start_devices, stored_options
from thicket_jax.cli.options import Machine, Out, Selection
from thicket_jax.cli.parsing import _help_is_fine, _take_name, parse
from thicket_jax.cli.parsing import block_size as read_block_size
from thicket_jax.cli.progress import _Progress, _quiet, _say
from thicket_jax.cli.report import _print_table
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.tasks import registry

if TYPE_CHECKING:
    from thicket_jax.selection.rounds import Rule


def _run(words: list[str]) -> None:
    with _help_is_fine():
        name, rest = _take_name(words, "run", f"a task ({', '.join(registry.REGISTRY)})")
        import tyro

        module = registry.module(name)
        # An outer record joins the task's options with the common ones into one flat list.
        kind = dataclasses.make_dataclass(
            "run",
            [
                ("task", module.Options),
                ("selection", Selection),
                ("machine", Machine),
                ("out", Out),
            ],
            frozen=True,
        )
        kind.__doc__ = registry.REGISTRY[name][1]
        parsed = parse(Annotated[kind, tyro.conf.OmitArgPrefixes], rest, f"thicket run {name}")
        out = parsed.out.out
        if out is None:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            out = f"runs/{name}-{stamp}"
        command = shlex.join(["thicket", "run", *words])
        from thicket_jax.selection import rules

        chosen = parsed.selection
        rule = rules.check_rule(chosen.select, chosen.budget, chosen.delta)
        options = parsed.task.resolved()
        _search(name, options, rule, parsed.machine, pathlib.Path(out), False, command)


def _resume(words: list[str]) -> None:
    from thicket_jax.runs import files

    with _help_is_fine():
        folder, rest = _take_name(words, "resume", "a run directory")
        machine = parse(Machine, rest, "thicket resume RUN")
        run_dir = pathlib.Path(folder)
        config = files.read_json(run_dir / "config.json")
        options, rule = stored_options(run_dir, config), _stored_rule(run_dir, config)
        _search(config["task"], options, rule, machine, run_dir, True, config.get("command", ""))


def _stored_rule(run_dir: pathlib.Path, config: dict[str, Any]) -> "Rule | None":
    """Rebuilds how experts are selected from config.json; None for every expert on everything."""
    from thicket_jax.selection import rules

    try:
        return rules.from_json(config["select"]) if "select" in config else None
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{run_dir / 'config.json'} has a selection that this release does not know: {error}"
        ) from None


def _search(
    name: str,
    options: Any,
    rule: "Rule | None",
    machine: Machine,
    run_dir: pathlib.Path,
    resume: bool,
    command: str,
) -> None:
    from thicket_jax.runs import log as run_log

    block_size = read_block_size(machine.block_size)
    start_devices(machine)
    import jax

    from thicket_jax.experts.population import PRNGS, population
    from thicket_jax.search import pipeline

    first = jax.process_index() == 0
    if first and not resume:
        run_log.check_new(run_dir)
    if options.prng not in PRNGS:
        raise ArgumentError(f"prng={options.prng!r} is refused; choose one of: {', '.join(PRNGS)}")
    ks = pipeline.check_ks(options.k, options.num)
    experts = population(
        jax.random.key(options.seed, impl=options.prng),
        options.num,
        options.sigma,
        noise=options.law(),
        antithetic=options.antithetic,
    )
    say = _quiet if machine.quiet or not first else _say
    tally = compiled.keep(options.cache_folder()) if machine.compile_cache else None
    say(f"{name}: preparing the base model and the data")
    began = time.monotonic()
    task = registry.module(name).build(options)
    setup = time.monotonic() - began
    problem = task.problem()
    about = {
        "task": name,
        "model": task.model,
        "options": options.to_json(),
        "notes": list(task.notes),
        "command": command,
        "task_provenance": dict(task.provenance),
    }
    say(f"{name}: base ready in {setup:.1f} s; scoring {options.num} experts into {run_dir}")
    with _Progress(say) as progress:
        settings = pipeline.Settings(
            k=ks,
            block_size=block_size,
            backend=machine.backend,
            stream=machine.stream,
            run_dir=run_dir,
            resume=resume,
            watch=progress,
            draw=getattr(registry.module(name), "draw", None),
            setup_seconds=setup,
            rule=rule,
        )
        try:
            found = pipeline.execute(problem, experts, settings, about)
        except KeyboardInterrupt:
            hint = f"what is scored is kept; go on with: thicket resume {run_dir}"
            raise KeyboardInterrupt(hint if (run_dir / "log").is_dir() else "") from None
        finally:
            if task.close is not None:
                task.close()
    if tally is not None and tally.asked:
        say(f"{name}: {tally.line()}")
    if first:
        _print_table(found.table, run_dir)
