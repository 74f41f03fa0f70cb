"""Runs the experiment: `python -m experiments.needle_or_thicket`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.common.table import Layout
from experiments.needle_or_thicket import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets", nargs="+", help="default: line sinusoid squarewave; line if quick"
    )


NEEDLE_OR_THICKET = command.Experiment(
    name="needle_or_thicket",
    quick="one target, one seed, few experts",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
    layout=Layout(records=cells.PARTS, noun="cells"),
)
main = functools.partial(command.main, NEEDLE_OR_THICKET)

if __name__ == "__main__":
    sys.exit(main())
