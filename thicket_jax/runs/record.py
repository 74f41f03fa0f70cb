"""A run directory, read: what `thicket run` left, as JSON values and numpy arrays.

No model is seen here. Shapes: N experts, K kept, R random ones, B items.
"""

import dataclasses
import math
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.runs import consistency, digests, strings
from thicket_jax.runs.files import read_json
from thicket_jax.scoring import metrics
from thicket_jax.selection.race import restated

_ARRAYS = (
    "train",
    "base_train",
    "answers",
    "base_answers",
    "random_answers",
    "sample_answers",
    "targets",
)
_STRINGS = ("train_strings", "base_train_strings", "strings", "base_strings", "texts", "base_texts")
_COLUMNS = (
    "train_columns",
    "base_train_columns",
    "columns",
    "base_columns",
    "random_columns",
    "sample_columns",
)
_EXHIBIT = "exhibit_"


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything in a run directory, as JSON values and numpy arrays.

    In items.npz an array has its field's name; text NAME is `NAME.codes`, `NAME.bytes` and
    `NAME.ends`, as in `thicket_jax.runs.strings`; a column c of NAME is `NAME.c`; an exhibit is
    `exhibit_NAME`.

    Where the host reads the answers (text), answers are classes of equivalent ones, int32, −1
    where there is none, and targets are the outcome of each class, float32 [B_test, C].

    Attributes:
      config: config.json: task, model, options, metric, combines, versions, prng, notes,
        fingerprints, task_provenance.
      experts: experts.json: the population's recipe, the base's score, and for each of the N
        experts its id, sigma, sign, score (null if it failed), failed and rank (0 is the best).
        Where experts were selected in rounds also `selection`, and for each expert the number of
        items that its score is the mean of, and the base's score on the same items.
      train: float32 [N, B_train], per-item scores, higher is better; NaN where an expert failed,
        and where an item was not computed for it.
      base_train: float32 [B_train].
      answers: [K, B_test, ...], of the kept experts on the test items, best first.
      base_answers: [B_test, ...].
      random_answers: [R, B_test, ...], of experts drawn without looking at their score.
      sample_answers: [S, B_test], of the base with sampling.
      targets: [B_test, ...].
      train_strings: object [N, B_train], `str` or None, every expert's answers; and
        base_train_strings [B_train], the base's.
      strings: object [K, B_test], the kept experts' answers; and base_strings [B_test].
      texts: object [K, B_test], what the kept experts wrote in full; and base_texts [B_test].
      train_columns: name → float32 [N, B_train], what else was recorded; and base_train_columns
        [B_train].
      columns: name → float32 [K, B_test]; and base_columns [B_test], random_columns [R, B_test],
        sample_columns [S, B_test].
      exhibits: what the task's own figures need, by name.
      timing: seconds by stage, and experts per second.
      grader: a metric that is a program's own function, which no file can hold; None looks
        config's up by name.
    """

    config: dict[str, Any]
    experts: dict[str, Any]
    train: np.ndarray | None = None
    base_train: np.ndarray | None = None
    answers: np.ndarray | None = None
    base_answers: np.ndarray | None = None
    random_answers: np.ndarray | None = None
    sample_answers: np.ndarray | None = None
    targets: np.ndarray | None = None
    train_strings: np.ndarray | None = None
    base_train_strings: np.ndarray | None = None
    strings: np.ndarray | None = None
    base_strings: np.ndarray | None = None
    texts: np.ndarray | None = None
    base_texts: np.ndarray | None = None
    train_columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    base_train_columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    base_columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    random_columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sample_columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    exhibits: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    timing: dict[str, Any] = dataclasses.field(default_factory=dict)
    grader: metrics.Metric | None = None

    @property
    def metric(self) -> metrics.Metric:
        """The metric by which answers are graded.

        Where there are no answers, an unknown one is the score itself, higher is better.

        Raises:
          ArgumentError: answers are there, and their metric was a program's own function.
        """
        if self.grader is not None:
            return self.grader
        name = self.config["metric"]
        if name in metrics.METRICS:
            return metrics.METRICS[name]
        if self.gradable:
            raise ArgumentError(
                f"metric {name!r} is a function of the program that made this run; grade the run "
                "there, with thicket_jax.reports.results.build_results(record, metric=...)"
            )
        return metrics.Metric(name, True, lambda answers, targets: np.zeros(0))

    @property
    def base_score(self) -> float:
        """The base's score on the train items, higher is better; NaN if it failed."""
        return number_of(self.experts["base"]["score"])

    @property
    def scores(self) -> np.ndarray:
        """float64 [N], higher is better; NaN where an expert failed."""
        return np.array([number_of(row["score"]) for row in self.experts["experts"]], np.float64)

    @property
    def selection(self) -> dict[str, Any] | None:
        """How experts were selected in rounds; None where each was scored on every item."""
        stored: dict[str, Any] | None = self.experts.get("selection")
        seen = None if stored is None else [row["items"] for row in self.experts["experts"]]
        if not stored or not seen or not stored.get("guarantee"):
            return stored
        guarantee = restated(
            stored["guarantee"], len(seen), max(seen), max(self.config["options"]["k"])
        )
        return {**stored, "guarantee": guarantee}

    @property
    def items_seen(self) -> np.ndarray | None:
        """int [N], the items of each expert's score; None where each was scored on every item."""
        if "selection" not in self.experts:
            return None
        return np.array([row["items"] for row in self.experts["experts"]], np.int64)

    @property
    def gains(self) -> np.ndarray:
        """float64 [N], each expert's score minus the base's on the same items; NaN for failed."""
        same = [row.get("base", self.base_score) for row in self.experts["experts"]]
        return self.scores - np.array([number_of(value) for value in same], np.float64)

    @property
    def failed(self) -> np.ndarray:
        """bool [N]."""
        return np.array([row["failed"] for row in self.experts["experts"]], bool)

    @property
    def sigmas(self) -> np.ndarray:
        """float32 [N]."""
        return np.array([row["sigma"] for row in self.experts["experts"]], np.float32)

    @property
    def ranks(self) -> np.ndarray:
        """int [N], 0 is the best."""
        return np.array([row["rank"] for row in self.experts["experts"]], np.int64)

    @property
    def gradable(self) -> bool:
        """Whether the kept experts' answers on test items are there, with their targets."""
        return self.answers is not None and self.targets is not None

    @property
    def kept_scores(self) -> np.ndarray:
        """float64 [K], the kept experts' scores on the train items, best first."""
        kept = 0 if self.answers is None else len(self.answers)
        return self.scores[np.argsort(self.ranks)][:kept]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what items.npz holds, by the names in it."""
        held = {name: getattr(self, name) for name in _ARRAYS}
        for name in _STRINGS:
            if getattr(self, name) is not None:
                packed = strings.pack(getattr(self, name))
                held |= {f"{name}.{part}": x for part, x in packed.items()}
        for name in _COLUMNS:
            held |= {f"{name}.{column}": x for column, x in getattr(self, name).items()}
        held |= {f"{_EXHIBIT}{name}": x for name, x in self.exhibits.items()}
        return {name: x for name, x in held.items() if x is not None}

    def kept_tests(self) -> np.ndarray:
        """Returns each kept expert's test result in the metric's unit, float64 [K], best first."""
        if self.answers is None or self.targets is None:
            return np.zeros(0)
        return np.array([self.metric.per_item(x, self.targets).mean() for x in self.answers])


def load(run_dir: str | pathlib.Path, *, besides: tuple[str, ...] = ()) -> RunRecord:
    """Reads a finished run directory, all of whose files must be those that its manifest is of.

    Args:
      run_dir: the directory.
      besides: files and folders that may have changed, as the caller makes them again.

    Raises:
      RunError: it is missing, unfinished, or a file is damaged; the text names the file and what
        to do.
    """
    folder = pathlib.Path(run_dir)
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run directory; make one with thicket run TASK --out DIR")
    if not (folder / "config.json").exists():
        raise RunError(f"{folder / 'config.json'} is missing; {folder} is not a run directory")
    digests.check(folder, besides)
    again = f"delete it and results.json, and thicket resume {folder} makes it again from the log"
    config = read_json(
        folder / "config.json",
        ("task", "model", "options", "metric", "combines"),
        "restore it from a copy or start a new run",
    )
    for name in ("experts.json", "items.npz"):
        if not (folder / name).exists() and not (folder / "results.json").exists():
            raise RunError(f"{folder} is unfinished, as it has no {name}; thicket resume {folder}")
        if not (folder / name).exists():
            mend = again.replace("delete it and results.json", "delete results.json")
            raise RunError(f"{folder / name} is missing; {mend}")
    experts = read_json(folder / "experts.json", ("population", "base", "experts"), again)
    arrays = _read_arrays(folder / "items.npz", again)
    timing = {}
    if (folder / "results.json").exists():
        mend = f"delete it, and thicket report {folder} writes it again, without the run's timing"
        results = read_json(folder / "results.json", ("timing",), mend)
        timing = dict(results["timing"] or {})
    record = RunRecord(
        config=config,
        experts=experts,
        **_fields(arrays, folder / "items.npz", again),
        timing=timing,
    )
    _check(record, folder, again)
    return record


def _fields(arrays: dict[str, np.ndarray], path: pathlib.Path, mend: str) -> dict[str, Any]:
    """The fields that `RunRecord.arrays` wrote."""

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}

    fields: dict[str, Any] = {name: arrays.get(name) for name in _ARRAYS}
    fields |= {name: named(f"{name}.") for name in _COLUMNS}
    for name in _STRINGS:
        packed = named(f"{name}.")
        try:
            fields[name] = strings.unpack(packed) if packed else None
        except (KeyError, ValueError) as error:
            raise RunError(f"{path} is damaged ({name}: {error}); {mend}") from None
    return {**fields, "exhibits": named(_EXHIBIT)}


def number_of(value: float | None) -> float:
    """Returns a JSON number as a float; null is NaN."""
    return math.nan if value is None else float(value)


def _read_arrays(path: pathlib.Path, mend: str) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{path} is damaged ({error}); {mend}") from None


def _check(record: RunRecord, folder: pathlib.Path, mend: str) -> None:
    """Raises `RunError` unless the files are whole and belong together."""
    faults = {"experts.json": _experts_fault, "items.npz": _arrays_fault}
    for name, fault in {**faults, "experts.json or items.npz": _means_fault}.items():
        found = fault(record)
        if found:
            raise RunError(f"{folder / name} is damaged ({found}); {mend}")


def _experts_fault(record: RunRecord) -> str:
    try:
        N = len(record.scores)
        if not N:
            return "it has no experts"
        if np.isnan(record.scores[~record.failed]).any():
            return "an expert that did not fail has no score"
        if sorted(record.ranks) != list(range(N)):
            return f"its ranks are not 0 to {N - 1}"
        if not (record.sigmas > 0).all():
            return "a sigma is not positive"
        if not math.isfinite(record.base_score):
            return "the base has no score"
        if record.selection is not None:
            seen = record.items_seen
            if {"rule", "rounds", "share", "guarantee"} - set(record.selection) or seen is None:
                return "its selection is not whole"
            if not np.isfinite(record.gains[~record.failed]).all() or not (seen > 0).all():
                return "an expert has no items, or none of the base beside it"
        missing = {"id", "sign"} - set.intersection(*map(set, record.experts["experts"]))
        if missing:
            return f"an expert has no {', '.join(sorted(missing))}"
        return consistency.experts_fault(record.experts, record.config)
    except (KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _means_fault(record: RunRecord) -> str:
    return consistency.means_fault(record.experts, record.train, record.base_train)


def _arrays_fault(record: RunRecord) -> str:
    """Compares the leading axes: N experts, K kept, R random ones, S samples, B items."""
    N, B_train, B_test = len(record.scores), _length(record.base_train), _length(record.targets)
    K = _length(record.answers)
    wanted: dict[str, tuple[int | None, ...]] = {
        "base_train": (None,),
        "train": (N, B_train),
        "targets": (None,),
        "base_answers": (B_test,),
        "answers": (None, B_test),
        "random_answers": (None, B_test),
        "sample_answers": (None, B_test),
        "train_strings": (N, B_train),
        "base_train_strings": (B_train,),
        "strings": (K, B_test),
        "base_strings": (B_test,),
        "texts": (K, B_test),
        "base_texts": (B_test,),
        "train_columns": (N, B_train),
        "base_train_columns": (B_train,),
        "columns": (K, B_test),
        "base_columns": (B_test,),
        "random_columns": (_length(record.random_answers), B_test),
        "sample_columns": (_length(record.sample_answers), B_test),
    }
    for name, axes in wanted.items():
        held = getattr(record, name)
        if held is None:
            continue
        several = {f"{name}.{x}": held[x] for x in held} if isinstance(held, dict) else {name: held}
        for member, value in several.items():
            found = value.shape[: len(axes)]
            pairs = zip(axes, found, strict=False)
            if len(found) < len(axes) or any(a is not None and a != b for a, b in pairs):
                letters = "×".join("?" if a is None else str(a) for a in axes)
                return f"{member} is {list(value.shape)} where {letters} is expected"
    if record.answers is not None and not 1 <= len(record.answers) <= N:
        return f"answers of {len(record.answers)} experts of {N}"
    return _classes_fault(record)


def _classes_fault(record: RunRecord) -> str:
    """Classes of answers must be columns of their table of outcomes."""
    if record.strings is None or record.targets is None:
        return ""
    C = record.targets.shape[-1]
    for name in ("answers", "base_answers", "random_answers", "sample_answers"):
        value = getattr(record, name)
        if value is not None and value.size and int(value.max()) >= C:
            return f"{name} has class {int(value.max())} of {C}"
    return ""


def _length(value: np.ndarray | None) -> int | None:
    return None if value is None or not value.ndim else len(value)
