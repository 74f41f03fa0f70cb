"""What is searched, and how: the records that the pipeline takes, and what it says meanwhile."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, check_count
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.layouts import Layout
from thicket_jax.scoring.metrics import Metric
from thicket_jax.scoring.scores import Grade, Graded, Progress
from thicket_jax.selection.rounds import Rule

SCORE = Metric("score", True, lambda answers, targets: np.asarray(answers, np.float64))
"""The metric of a search whose answers are not graded: the score itself."""


@dataclasses.dataclass(frozen=True)
class Answering:
    """How answers on test items are read on the host, where a device cannot read them (text).

    The score function makes the outputs, by the program that scored the experts. Shapes: n experts,
    M rows of answers, B items of one piece, B_test items in all.

    Attributes:
      pieces: test batches, each of train's shapes, so that one compiled program serves all.
      sampled: the same pieces, to be answered by the base with sampling; () for none. The score
        function takes ids then (`Problem.with_id`), and draw i is the base under id i.
      read: `(number of the piece, outputs [n, ...]) -> Graded` [n, B], with answers; texts and
        columns where there are any.
      classes: object [M, B_test] of `str` or None → int32 [M, B_test]: classes of equivalent
        answers of each item, from 0 by first appearance; −1 abstains.
      sizes: B of each piece.
    """

    pieces: tuple[Any, ...]
    sampled: tuple[Any, ...]
    read: Callable[[int, Any], Graded]
    classes: Callable[[np.ndarray], np.ndarray]
    sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is searched: a model, its data and how answers are made, combined and graded.

    `score_fn` is `(params, batch) -> ...`; `with_id`, `(params, batch, id) -> ...` with the
    expert's id, int32 []. Test answers come from `predict_fn` and `test`, or from `answering`.
    `layout` says how items lie in `train` where that is not the leading axis of its leaves; a
    selection in rounds takes some of them. `hints` names entries of `train` and of test batches
    that change no score, but how fast it comes: a run is the same with others.
    """

    score_fn: Callable[..., Any]
    params: Any
    train: Any
    predict_fn: Callable[[Any, Any], Any] | None = None
    test: Any = None
    targets: np.ndarray | None = None
    metric: Metric = SCORE
    combines: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    grade: Grade | None = None
    exhibits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    with_id: bool = False
    answering: Answering | None = None
    layout: Layout | None = None
    hints: tuple[str, ...] = ()

    def without_hints(self, batch: Any) -> Any:
        """Returns a batch without the entries that are hints."""
        if not self.hints:
            return batch
        return {name: leaf for name, leaf in batch.items() if name not in self.hints}


@dataclasses.dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
      done: experts scored, those in the log included; of the round, in a selection in rounds.
      total: N; or the experts of the round.
      best: the best score so far, in the metric's unit; None while there is none.
      base: the base's score, in the metric's unit; None if it failed.
      tokens: generated in this process for the experts scored now; None where the grade records
        no column `tokens`.
      stage: which round this is, or that test items are answered, in words; empty where every
        expert is scored on everything.
      unit: what is counted.
    """

    done: int
    total: int
    best: float | None
    base: float | None
    tokens: int | None
    stage: str = ""
    unit: str = "expert"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How it is searched and where it is written; only `rule` changes which experts are kept.

    Attributes:
      k: ensemble sizes.
      placement: how functions are mapped.
      keep_items: keep every item's outcome.
      run_dir: where it is written, or None.
      resume: go on with what `run_dir` has.
      progress: called with (experts scored, N).
      on_progress: called with all that is known of how far the search is.
      draw: the task's own figures.
      on_phase: called with what begins, in words: compiling, scoring the base, ensembling.
      setup_seconds: that making the problem took.
      rule: selects in rounds, see `thicket_jax.selection.rounds`; None scores every expert on all.
    """

    k: tuple[int, ...]
    placement: Placement
    keep_items: bool = True
    run_dir: pathlib.Path | None = None
    resume: bool = False
    progress: Progress | None = None
    on_progress: Callable[[SearchProgress], None] | None = None
    on_phase: Callable[[str], None] | None = None
    draw: Callable[..., Any] | None = None
    setup_seconds: float = 0.0
    rule: Rule | None = None


def check_ks(k: int | Sequence[int], num: int) -> tuple[int, ...]:
    """Returns the ensemble sizes as a tuple; each must be between 1 and `num`, and there once."""
    sizes = tuple(k) if isinstance(k, Sequence | np.ndarray) else (k,)
    if not sizes:
        raise ArgumentError("k is empty; give at least one ensemble size")
    for size in sizes:
        check_count("k", size)
        if size > num:
            raise ArgumentError(f"k={size} is larger than num={num}; lower k or raise num")
        if list(sizes).count(size) > 1:
            raise ArgumentError(f"k={size} is there twice; give each ensemble size once")
    return tuple(int(size) for size in sizes)
