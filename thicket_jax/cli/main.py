"""The command line: `thicket tasks | run | density | resume | report | landscape | export`."""

import os
import sys
from collections.abc import Callable, Sequence

from thicket_jax.cli import landscape, machine
from thicket_jax.cli.export import _export
from thicket_jax.cli.parsing import USAGE, _help_is_fine, parse
from thicket_jax.cli.progress import _quiet, _say
from thicket_jax.cli.report import _report
from thicket_jax.cli.run import _resume, _run, _search
from thicket_jax.errors import ArgumentError, ThicketError
from thicket_jax.tasks import registry


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


def _tasks(words: list[str]) -> None:
    if words:
        raise ArgumentError(f"thicket tasks takes no options, got {' '.join(words)}")
    for name, (_, line) in registry.REGISTRY.items():
        print(f"{name:14} {line}")


def _density(words: list[str]) -> None:
    from thicket_jax.cli import density

    with _help_is_fine():
        if words and words[0] in ("-h", "--help"):
            print(density.USAGE, end="")
            return
        asked = density.read(words)
        machine.start_devices(asked.machine)
        say = _quiet if asked.machine.quiet else _say
        for line in density.execute(asked, _search, say):
            print(line)


def _landscape(words: list[str]) -> None:
    with _help_is_fine():
        if words and words[0] in ("-h", "--help"):
            print(landscape.USAGE)
        runs, rest = landscape.split_runs(words)
        options = parse(landscape.Options, rest, "thicket landscape RUN")
        say = _quiet if options.quiet else _say
        for line in landscape.make(runs, options, say):
            print(line)


if __name__ == "__main__":
    sys.exit(main())
