"""The command line: `thicket tasks | run | density | resume | report | landscape | export`."""

import contextlib
import dataclasses
import datetime
import functools
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from thicket_jax import compiled, landscape_command, launching, tasks
from thicket_jax.arguments import (
    ExportOptions,
    Help,
    Machine,
    Out,
    ReportOptions,
    Selection,
    combine_names,
    parse,
)
from thicket_jax.arguments import block_size as read_block_size
from thicket_jax.errors import ArgumentError, RunError, ThicketError

if TYPE_CHECKING:
    from thicket_jax.problem import Watch
    from thicket_jax.racing import Rule

USAGE = """\
usage: thicket COMMAND ...

  thicket tasks                       what can be run, one line each
  thicket run TASK [options]          base, sample, score, select, ensemble, report
  thicket density TASKS [options]     one population on several tasks: density, discordance
  thicket resume RUN                  go on with an interrupted run
  thicket report RUN [options]        tables and figures again, from the log alone
  thicket landscape RUN [options]     scores over a plane through the base
  thicket export RUN --rank 1 --to D  one expert (or --merge K) as a checkpoint

  thicket COMMAND --help              the options of a command (thicket run TASK --help)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "tasks": _tasks,
        "run": _run,
        "density": _density,
        "resume": _resume,
        "report": _report,
        "landscape": _landscape,
        "export": _export,
    }
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        import thicket_jax

        print(f"thicket {thicket_jax.__version__}")
        return 0
    if words[0] not in commands:
        return _refuse(f"unknown command {words[0]!r}; choose one of: {', '.join(commands)}")
    try:
        commands[words[0]](words[1:])
    except ThicketError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as interrupt:
        hint = str(interrupt)
        print(f"thicket: interrupted{'; ' + hint if hint else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _refuse(text: str) -> int:
    print("thicket: " + " ".join(text.split()), file=sys.stderr)
    return 2


@contextlib.contextmanager
def _help_is_fine() -> Iterator[None]:
    with contextlib.suppress(Help):
        yield


def _tasks(words: list[str]) -> None:
    if words:
        raise ArgumentError(f"thicket tasks takes no options, got {' '.join(words)}")
    for name, (_, line) in tasks.REGISTRY.items():
        print(f"{name:14} {line}")


def _take_name(words: list[str], command: str, what: str) -> tuple[str, list[str]]:
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            print(USAGE, end="")
            raise Help
        raise ArgumentError(f"thicket {command} needs {what} first; see thicket --help")
    return words[0], words[1:]


def _run(words: list[str]) -> None:
    with _help_is_fine():
        name, rest = _take_name(words, "run", f"a task ({', '.join(tasks.REGISTRY)})")
        import tyro

        module = tasks.module(name)
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
        kind.__doc__ = tasks.REGISTRY[name][1]
        parsed = parse(Annotated[kind, tyro.conf.OmitArgPrefixes], rest, f"thicket run {name}")
        out = parsed.out.out
        if out is None:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            out = f"runs/{name}-{stamp}"
        command = shlex.join(["thicket", "run", *words])
        from thicket_jax import racing

        chosen = parsed.selection
        rule = racing.check_rule(chosen.select, chosen.budget, chosen.delta)
        options = parsed.task.resolved()
        _search(name, options, rule, parsed.machine, pathlib.Path(out), False, command)


def _density(words: list[str]) -> None:
    from thicket_jax import density_command

    with _help_is_fine():
        if words and words[0] in ("-h", "--help"):
            print(density_command.USAGE, end="")
            return
        asked = density_command.read(words)
        launching.start_devices(asked.machine)
        say = _quiet if asked.machine.quiet else _say
        for line in density_command.execute(asked, _search, say):
            print(line)


def _resume(words: list[str]) -> None:
    from thicket_jax import runlog

    with _help_is_fine():
        folder, rest = _take_name(words, "resume", "a run directory")
        machine = parse(Machine, rest, "thicket resume RUN")
        run_dir = pathlib.Path(folder)
        config = runlog.read_json(run_dir / "config.json")
        options, rule = launching.stored_options(run_dir, config), _stored_rule(run_dir, config)
        _search(config["task"], options, rule, machine, run_dir, True, config.get("command", ""))


def _stored_rule(run_dir: pathlib.Path, config: dict[str, Any]) -> "Rule | None":
    """Rebuilds how experts are selected from config.json; None for every expert on everything."""
    from thicket_jax import racing

    try:
        return racing.from_json(config["select"]) if "select" in config else None
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
    from thicket_jax import runlog

    block_size = read_block_size(machine.block_size)
    launching.start_devices(machine)
    import jax

    from thicket_jax import search
    from thicket_jax.experts import PRNGS, population

    first = jax.process_index() == 0
    if first and not resume:
        runlog.check_new(run_dir)
    if options.prng not in PRNGS:
        raise ArgumentError(f"prng={options.prng!r} is refused; choose one of: {', '.join(PRNGS)}")
    ks = search.check_ks(options.k, options.num)
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
    task = tasks.module(name).build(options)
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
        settings = search.Settings(
            k=ks,
            block_size=block_size,
            backend=machine.backend,
            stream=machine.stream,
            run_dir=run_dir,
            resume=resume,
            watch=progress,
            draw=getattr(tasks.module(name), "draw", None),
            setup_seconds=setup,
            rule=rule,
        )
        try:
            found = search.execute(problem, experts, settings, about)
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quiet(text: str) -> None:
    del text


class _Progress:
    """Shows how far a search is: a bar on a terminal, a line every ten percent elsewhere."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.tenth = say, -1
        self.bar: Any = None
        self.terminal = say is _say and sys.stderr.isatty()
        self.began: float | None = None
        self.first = 0
        self.stage, self.tokens = "", 0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, now: "Watch") -> None:
        done, total = now.done, now.total
        if now.stage != self.stage:
            self.stage, self.began, self.tenth = now.stage, None, -1
            self.tokens = now.tokens or 0
            self.say(f"{now.stage}: {total} experts")
            if self.bar is not None:
                self.bar.close()
                self.bar = None
        if self.began is None:
            self.began, self.first = time.monotonic(), done
            if done:
                self.say(f"{done} of {total} experts are in the log")
        seconds = max(time.monotonic() - self.began, 1e-9)
        tokens = (now.tokens or 0) - self.tokens
        seen = [f"{tokens / seconds:,.0f} tokens/s"] if tokens else []
        seen += [f"best {now.best:.4g}"] if now.best is not None else []
        seen += [f"base {now.base:.4g}"] if now.base is not None else []
        if self.terminal:
            if self.bar is None:
                import tqdm

                self.bar = tqdm.tqdm(total=total, initial=done, unit="expert", smoothing=0.1)
            self.bar.set_postfix_str(", ".join(seen), refresh=False)
            self.bar.update(done - self.bar.n)
            return
        tenth = 10 * done // total
        if tenth == self.tenth or done == self.first:
            return
        self.tenth = tenth
        rate = (done - self.first) / seconds
        left = (total - done) / max(rate, 1e-9)
        facts = [f"{done}/{total} experts", f"{rate:.1f}/s", *seen, f"{left:.0f} s left"]
        self.say(", ".join(facts))


def _print_table(table: dict[str, Any], run_dir: pathlib.Path) -> None:
    """Prints base, best and ensembles in the metric's unit, and where the report is."""
    from thicket_jax.report_numbers import joined_rounds

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


def _report(words: list[str]) -> None:
    from thicket_jax import report

    with _help_is_fine():
        folder, rest = _take_name(words, "report", "a run directory")
        options = parse(ReportOptions, rest, "thicket report RUN")
        run_dir = pathlib.Path(folder)
        record = report.load(run_dir)
        table = report.build_results(record, ks=options.k, combine=combine_names(options.vote))
        name = record.config["task"]
        draw = getattr(tasks.module(name), "draw", None) if name in tasks.REGISTRY else None
        report.write(record, run_dir, table, draw=draw)
        _print_table(table, run_dir)


def _landscape(words: list[str]) -> None:
    with _help_is_fine():
        if words and words[0] in ("-h", "--help"):
            print(landscape_command.USAGE)
        runs, rest = landscape_command.split_runs(words)
        options = parse(landscape_command.Options, rest, "thicket landscape RUN")
        say = _quiet if options.quiet else _say
        for line in landscape_command.make(runs, options, say):
            print(line)


def _export(words: list[str]) -> None:
    from thicket_jax import export, runlog

    with _help_is_fine():
        folder, rest = _take_name(words, "export", "a run directory")
        options = parse(ExportOptions, rest, "thicket export RUN")
        if (options.rank is None) == (options.merge is None):
            raise ArgumentError("thicket export takes either --rank or --merge")
        run_dir = pathlib.Path(folder)
        config = runlog.read_json(run_dir / "config.json")
        stored = launching.stored_options(run_dir, config)
        module = tasks.module(config["task"])
        if hasattr(module, "base_params"):
            params = module.base_params(stored)
        else:
            params = module.build(stored).params
        save = getattr(module, "save", None)
        path = export.export(
            run_dir,
            params,
            pathlib.Path(options.to),
            rank=options.rank,
            merge=options.merge,
            save=None if save is None else functools.partial(save, stored),
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
