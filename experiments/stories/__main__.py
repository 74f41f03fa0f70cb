"""Runs the experiment: `python -m experiments.stories --model DIR`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.common.table import Layout
from experiments.stories import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="checkpoint folder of stories260K")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[3e-3, 1e-2, 3e-2])
    parser.add_argument("--noises", nargs="+", default=["gaussian", "rademacher"])
    parser.add_argument("--num", type=int, default=512, help="experts of a search, N")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 20], help="ensemble sizes")
    parser.add_argument("--train-items", type=int, default=32)
    parser.add_argument("--test-items", type=int, default=192)
    parser.add_argument("--runs", help="keep the run directories in this folder; default: removed")


STORIES = command.Experiment(
    name="stories",
    quick="one seed, 32 experts, few prompts",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
    layout=Layout(noun="searches", once=True),
)
main = functools.partial(command.main, STORIES)

if __name__ == "__main__":
    sys.exit(main())
