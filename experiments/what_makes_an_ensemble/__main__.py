"""Runs the experiment, `python -m experiments.what_makes_an_ensemble`; see README.md."""

import argparse
import functools
import sys

from experiments.common import command
from experiments.common.table import Layout
from experiments.what_makes_an_ensemble import cells, present, verdict


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="checkpoint folder of stories260K; without it no stories")
    parser.add_argument(
        "--tasks", nargs="+", help="default: digits signals stories; digits if quick"
    )


WHAT_MAKES_AN_ENSEMBLE = command.Experiment(
    name="what_makes_an_ensemble",
    quick="one tiny search",
    arguments=_arguments,
    plan=cells.plan,
    describe=cells.describe,
    judge=verdict.judge_table,
    present=present.present_table,
    seeds=None,
    layout=Layout(noun="searches", digits=5),
)
main = functools.partial(command.main, WHAT_MAKES_AN_ENSEMBLE)

if __name__ == "__main__":
    sys.exit(main())
