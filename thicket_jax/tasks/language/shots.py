"""Worked examples before a prompt: which rows, and how they are written."""

from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks.language import asking
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text.data.splits import Split
from thicket_jax.text.prompts import Shot


def choose(options: Options, spec: asking.Spec, split: Split) -> list[Shot]:
    """Returns the examples that --few-shot asks for, the same for every prompt of a run.

    They are drawn from rows that are neither training nor test items, by the seed alone: the first
    of more examples are those of fewer.

    Raises:
      ArgumentError: the task has no worked answers, or there are too few rows.
      DataError: a row has no worked answer; the line shows it.
    """
    count = options.few_shot
    if not count:
        return []
    if spec.shot is None:
        raise ArgumentError(f"--few-shot is of no use: {spec.name} has no worked answers to show")
    spare = split.spare
    if count > len(spare):
        place = f"the training rows of {options.data}" if options.data else "what is generated"
        raise ArgumentError(
            f"--few-shot {count} takes examples that are neither training nor test items, and "
            f"{place} have {len(spare)} such; lower it, --train-items or --test-items"
        )
    order = np.random.default_rng([options.seed, _STREAM]).permutation(len(spare))[:count]
    return [_written(options, spec, spare[i]) for i in order]


_STREAM = 1  # of the seed's random numbers; the split has the other


def _written(options: Options, spec: asking.Spec, row: Any) -> Shot:
    assert spec.shot is not None
    with asking.naming(row, options.data):
        spec.item(row)  # which refuses a row without a right answer
        return spec.prompt(row), spec.shot(row)
