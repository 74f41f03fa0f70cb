"""Runs the experiment: `python -m experiments.signals`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.signals import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", nargs="+", metavar="PRETRAIN:TARGET", help="default: all 16")
    parser.add_argument("--num", type=int, default=1000, help="experts per run, N")
    parser.add_argument("--k", type=int, default=10, help="experts in the ensemble, K")
    parser.add_argument("--train-items", type=int, default=1024)
    parser.add_argument("--test-items", type=int, default=256)


SIGNALS = command.Experiment(
    name="signals",
    quick="two pairs, one seed, 20 experts",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
)
main = functools.partial(command.main, SIGNALS)

if __name__ == "__main__":
    sys.exit(main())
