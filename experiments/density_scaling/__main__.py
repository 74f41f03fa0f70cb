"""Runs the experiment: `python -m experiments.density_scaling`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.common.table import Layout
from experiments.density_scaling import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="checkpoint folder of stories260K; without it, no row of its"
    )
    parser.add_argument("--widths", type=int, nargs="+", help="default: 16, 32, 64, 128 and 256")
    parser.add_argument("--num", type=int, default=500, help="experts of each setting, N")
    parser.add_argument("--items", type=int, default=40, help="test lines of each task, B")
    parser.add_argument("--cache", help="where models and data are kept; default the user's cache")


DENSITY_SCALING = command.Experiment(
    name="density_scaling",
    quick="one width trained for a moment, few experts",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
    layout=Layout(settings="identity", records=("records",), noun="models", once=True),
)
main = functools.partial(command.main, DENSITY_SCALING)

if __name__ == "__main__":
    sys.exit(main())
