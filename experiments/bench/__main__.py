"""Runs the benchmarks: `python -m experiments.bench [NAME ...]`; see README.md.

Each benchmark runs in a process of its own, so that none inherits another's memory or threads.
"""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from experiments.bench import outcome
from experiments.common import command, machine
from thicket_jax.errors import ArgumentError

NAMES = (
    "scoring",
    "pretraining",
    "noise",
    "low_rank",
    "decoder",
    "blocks",
    "mappers",
    "compiling",
    "memory",
    "cost_of_n",
    "calls",
    "text",
    "text_slots",
    "text_large",
)
BY_NAME = ("text_accelerator", "aot")  # not part of `all`: need an accelerator; the extra `aot`
NEEDS_MODEL = "needs --model, the checkpoint folder of stories260K"


def main(words: Sequence[str] | None = None) -> int:
    """Runs the benchmarks that are asked for; returns the exit code."""
    options = _parser().parse_args(words)
    return command.exit_code("bench", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "bench", "tiny sizes, measures nothing", "NAME-PLATFORM.json", draws=False
    )
    parser.add_argument("name", nargs="?", default="all", choices=[*NAMES, *BY_NAME, "all"])
    parser.add_argument(
        "--torch-python",
        default=sys.executable,
        help="a Python that has torch and numpy (text: transformers too); default this one",
    )
    parser.add_argument("--model", help="text: the checkpoint folder of stories260K")
    parser.add_argument("--chips", help="aot: names of chips with commas between; default all")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.name == "text" and not options.model:
        raise ArgumentError(f"text {NEEDS_MODEL}")
    folder = command.results_folder("bench", options)
    command.make_folder(folder)
    if options.name == "all":
        return _one_by_one(folder, options)
    name = options.name
    machine.start_devices()
    result = outcome.measure(
        name, options.quick, options.torch_python, options.model, options.chips
    )
    place = outcome.write(name, result, folder)
    command.say(outcome.text(name, result))
    command.say(f"wrote {place}")
    if folder.resolve() == command.own_folder("bench"):
        command.into_readme("bench", {name: outcome.every_platform(name, folder)})
    return 0


def _one_by_one(folder: pathlib.Path, options: argparse.Namespace) -> int:
    """Runs all benchmarks, whatever becomes of one; returns the highest exit code."""
    if not options.model:
        command.say(f"text is left out: it {NEEDS_MODEL}")
    names = [name for name in NAMES if name != "text" or options.model]
    common = ["--out", str(folder), "--torch-python", options.torch_python]
    common += ["--quick"] * options.quick
    common += ["--model", options.model] if options.model else []
    words = [sys.executable, "-m", "experiments.bench"]
    return max(subprocess.run([*words, name, *common], check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
