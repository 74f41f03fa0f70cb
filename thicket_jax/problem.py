"""What is searched, and how: the two records that the pipeline takes."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles import Combine
from thicket_jax.metrics import Metric
from thicket_jax.scoring import Grade, Progress, ScoreFn

SCORE = Metric("score", True, lambda answers, targets: np.asarray(answers, np.float64))
"""The metric of a search whose answers are not graded: the score itself."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is searched: a model, its data and how answers are made, combined and graded."""

    score_fn: ScoreFn
    params: Any
    train: Any
    predict_fn: Callable[[Any, Any], Any] | None = None
    test: Any = None
    targets: np.ndarray | None = None
    metric: Metric = SCORE
    combines: Mapping[str, Combine] = dataclasses.field(default_factory=dict)
    grade: Grade | None = None
    exhibits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How it is searched and where it is written; nothing here changes an expert or its rank."""

    k: tuple[int, ...]
    block_size: int | str = "auto"
    devices: Sequence[jax.Device] | None = None
    backend: str = "pmap"
    keep_items: bool = True
    run_dir: pathlib.Path | None = None
    resume: bool = False
    progress: Progress | None = None
    draw: Callable[..., Any] | None = None
    setup_seconds: float = 0.0
