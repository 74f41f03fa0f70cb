"""The command line: words → a command, and what it ended with → an exit code."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

from thicket_jax.cli.density import density
from thicket_jax.cli.export import export
from thicket_jax.cli.landscape import landscape
from thicket_jax.cli.machine import WorkError, reason
from thicket_jax.cli.parsing import USAGE
from thicket_jax.cli.progress import say
from thicket_jax.cli.report import report
from thicket_jax.cli.run import resume, run
from thicket_jax.cli.tasks import tasks
from thicket_jax.errors import PeerError, ThicketError, check_word
from thicket_jax.runs import interrupts

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "tasks": tasks,
    "run": run,
    "density": density,
    "resume": resume,
    "report": report,
    "landscape": landscape,
    "export": export,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0; 2 for bad input, and for what fails before the work; 1 for what the system refuses after;
    130, 143 and 129 when interrupted by Ctrl-C, SIGTERM and SIGHUP.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"] and words[1:]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words == ["--version"]:
        import importlib.metadata

        print(f"thicket {importlib.metadata.version('thicket-jax')}")
        return 0
    try:
        with interrupts.ending():
            check_word("command", words[0], COMMANDS)
            COMMANDS[words[0]](words[1:])
    except ThicketError as error:
        say("thicket: " + " ".join(str(error).split()))
        code = 1 if isinstance(error, WorkError) else 2
        if isinstance(error, PeerError) or (isinstance(error, WorkError) and error.others):
            sys.stdout.flush()
            os._exit(code)
        return code
    except KeyboardInterrupt as interrupt:
        hint = str(interrupt)
        say(f"thicket: interrupted{'; ' + hint if hint else ''}")
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        say(f"thicket: {reason(error)}")
        return 2
    return 0
