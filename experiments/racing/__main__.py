"""Runs the experiment: `python -m experiments.racing [--model DIR]`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.racing import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="checkpoint folder of stories260K; without it no stories")
    parser.add_argument(
        "--tasks", nargs="+", help="default: signals digits stories; signals if quick"
    )


RACING = command.Experiment(
    name="racing",
    quick="tiny sizes and one seed",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
    seeds=None,
)
main = functools.partial(command.main, RACING)

if __name__ == "__main__":
    sys.exit(main())
