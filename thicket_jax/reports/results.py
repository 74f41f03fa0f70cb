"""A run record → results.json: base, best, ensembles, density, timing."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.analysis import baselines, density, intervals
from thicket_jax.analysis.baselines import Voted
from thicket_jax.ensembles.combine import RULES, Combine, with_weights
from thicket_jax.errors import ArgumentError, RunError, check_count
from thicket_jax.runs.files import plain_json
from thicket_jax.runs.record import RunRecord, number_of
from thicket_jax.scoring.metrics import Metric
from thicket_jax.scoring.scores import TIMED_OUT

TIMES = ("setup_s", "compile_s", "score_s", "ensemble_s", "experts_per_s")
PROVENANCE = ("versions", "platform", "devices", "backend", "block_size", "leaves", "fingerprints")
VOTES = ("majority_vote", "weighted_vote")
CLASS_RULES = (*VOTES, "mean_probs")
# Of an interval in the rows of an analysis → in results.json.
_INTERVALS = {
    "interval": "ci95",
    "delta_vs_base_interval": "delta_ci95",
    "ensemble_minus_baseline_interval": "ensemble_minus_ci95",
}


def sweep(
    record: RunRecord,
    ks: Sequence[int] | None = None,
    combine: Combine | str | Sequence[str] | None = None,
    *,
    rules: Mapping[str, Combine] | None = None,
) -> list[dict[str, Any]]:
    """Grades ensembles of the best k experts from their logged answers; no model is run.

    Args:
      record: the run.
      ks: ensemble sizes; default the run's own. At most the number of kept experts.
      combine: name or names of rules in `ensembles.combine.RULES`, or one function of [K, B, ...];
        default the run's own. Weighted rules take the experts' logged train scores.
      rules: a program's own rules by name, for names that `ensembles.combine.RULES` does not have.

    Returns:
      For every rule and k: `k`, `combine`, `test` and `stderr` in the metric's unit, and
      `delta_vs_base` with `delta_ci95`, paired over the same test items (None where unknown).
      Empty if the run kept no answers and `ks` was not asked for.

    Raises:
      ArgumentError: a k or a rule that these answers do not allow.
    """
    return _rows(record, _votes(record, ks, combine, rules or {}))


def _votes(
    record: RunRecord,
    ks: Sequence[int] | None,
    combine: Combine | str | Sequence[str] | None,
    rules: Mapping[str, Combine],
) -> list[Voted]:
    if not record.gradable:
        if ks is None:
            return []
        raise ArgumentError("k cannot be swept: this run kept no graded test answers; leave it out")
    answers, targets, weights = record.answers, record.targets, record.kept_scores
    assert answers is not None and targets is not None
    votes = []
    for name, rule in _rules(record, combine, rules):
        for k in _sizes(record, ks, len(answers)):
            joined = with_weights(rule, weights[:k])(answers[:k])
            items = record.metric.per_item(np.asarray(joined), targets)
            votes.append(Voted(k, name, rule, items))
    return votes


def _rows(record: RunRecord, votes: Sequence[Voted]) -> list[dict[str, Any]]:
    base = None
    if record.base_answers is not None and record.targets is not None:
        base = record.metric.per_item(record.base_answers, record.targets)
    rows = []
    for vote in votes:
        delta, interval = math.nan, (math.nan, math.nan)
        if base is not None:
            delta, interval = intervals.paired_difference(vote.items, base)
        rows.append(
            {
                "k": vote.k,
                "combine": vote.combine,
                "test": float(vote.items.mean()),
                "stderr": intervals.standard_error(vote.items),
                "delta_vs_base": delta,
                "delta_vs_base_interval": list(interval),
            }
        )
    return plain_json(_named(rows))


def _named(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of analyses with the names that results.json has for their intervals."""
    return [{_INTERVALS.get(name, name): x for name, x in row.items()} for row in rows]


def build_results(
    record: RunRecord,
    ks: Sequence[int] | None = None,
    combine: Combine | str | Sequence[str] | None = None,
    *,
    metric: Metric | None = None,
    rules: Mapping[str, Combine] | None = None,
) -> dict[str, Any]:
    """Returns what results.json holds: JSON values, every number in the metric's own unit.

    Base, best and ensemble are graded by the same metric. A number that is unknown or not finite
    is None. Without test answers `test` is None and `ensemble` is empty. `baselines` and `gains`
    are those of `thicket_jax.analysis.baselines`; `gains` is absent where answers were read in one
    way.

    Args:
      record: the run.
      ks, combine, rules: as in `sweep`.
      metric: a program's own metric; default the one that config names.

    Raises:
      ArgumentError: a k or a rule that these answers do not allow.
      RunError: every expert failed.
    """
    if metric is not None:
        record = dataclasses.replace(record, grader=metric)
    metric, options, failed = record.metric, record.config["options"], record.failed
    if failed.all():
        raise RunError(
            f"all {len(failed)} experts failed, so there is nothing to report; "
            "try a smaller sigma, or look for NaN in the score function"
        )
    unit = metric.from_score
    base_test = best_test = np.array([])
    if record.targets is not None and record.base_answers is not None:
        base_test = metric.per_item(record.base_answers, record.targets)
    if record.targets is not None and record.answers is not None:
        best_test = metric.per_item(record.answers[0], record.targets)
    best = record.experts["experts"][int(np.argmin(record.ranks))]
    rows = _density(record)
    votes = _votes(record, ks, combine, rules or {})
    ensemble, gains = _rows(record, votes), baselines.gains(record, votes)
    population = record.experts["population"]
    return plain_json(
        {
            "task": record.config["task"],
            "model": record.config["model"],
            "num": len(failed),
            "k": list(dict.fromkeys(row["k"] for row in ensemble)) or options.get("k"),
            "sigma": options.get("sigma", [row["sigma"] for row in rows]),
            "noise": population.get("noise", {}).get("family"),
            "seed": options.get("seed"),
            "metric": metric.name,
            "higher_is_better": metric.higher_is_better,
            "base": {"train": unit(record.base_score), **_graded(base_test)},
            "best": {
                "id": best["id"],
                "sigma": float(str(np.float32(best["sigma"]))),
                "train": unit(number_of(best["score"])),
                **_graded(best_test),
            },
            "ensemble": ensemble,
            "baselines": _named(baselines.compare(record, votes)),
            **({} if gains is None else {"gains": gains}),
            "density": _named([{**row, "mean": unit(row["mean"])} for row in rows]),
            **({} if record.selection is None else {"selection": record.selection}),
            "failed": int(failed.sum()),
            **_timed_out(record),
            "timing": {name: record.timing.get(name) for name in TIMES},
            "provenance": {
                "prng": population.get("prng"),
                "key": population.get("key"),
                "noise": population.get("noise"),
                **{name: record.config[name] for name in PROVENANCE if name in record.config},
                "task": record.config.get("task_provenance", {}),
            },
        }
    )


def _timed_out(record: RunRecord) -> dict[str, dict[str, int]]:
    """How many answers ran into a time limit, by part; nothing where none did."""
    tables = {
        "train": (record.train_columns, record.base_train_columns),
        "test": (
            record.columns,
            record.base_columns,
            record.random_columns,
            record.sample_columns,
        ),
    }
    counts = {
        part: sum(int(np.nansum(columns.get(TIMED_OUT, 0))) for columns in found)
        for part, found in tables.items()
    }
    return {TIMED_OUT: counts} if any(counts.values()) else {}


def _density(record: RunRecord) -> list[dict[str, Any]]:
    """The density by sigma; where experts saw different items, each against the base on its own.

    There the mean is that of the paired differences, added to the base's score on all items.
    """
    base = record.base_score
    if record.selection is None:
        return density.density(record.scores, record.failed, record.sigmas, base)
    rows = density.density(record.gains, record.failed, record.sigmas, 0.0)
    return [{**row, "mean": base + row["mean"]} for row in rows]


def _graded(items: np.ndarray) -> dict[str, float]:
    mean = float(items.mean()) if items.size else math.nan
    return {"test": mean, "test_stderr": intervals.standard_error(items)}


def _sizes(record: RunRecord, ks: Sequence[int] | None, kept: int) -> list[int]:
    asked = record.config["options"].get("k", kept) if ks is None else ks
    asked = [asked] if isinstance(asked, int) else list(asked)
    for k in asked:
        if check_count("k", k) > kept:
            raise ArgumentError(
                f"k={k} is larger than the {kept} experts whose answers the run kept; "
                f"use at most {kept}, or run again with --k {k}"
            )
    return list(dict.fromkeys(int(k) for k in asked))


def _rules(
    record: RunRecord,
    combine: Combine | str | Sequence[str] | None,
    own: Mapping[str, Combine],
) -> list[tuple[str, Callable[..., Any]]]:
    if callable(combine):
        return [(getattr(combine, "__name__", "function"), combine)]
    names = (list(own) or record.config["combines"]) if combine is None else combine
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    fitting = [name for name in RULES if _fits(name, record)]
    known = {**{name: RULES[name] for name in fitting}, **own}
    for name in names:
        if name not in known:
            assert record.answers is not None
            shape = f"{record.answers.dtype}{list(record.answers.shape)}"
            why = f"does not fit answers {shape} graded by {record.metric.name}"
            if name not in RULES:
                why = "is not a rule of this package"
            raise ArgumentError(f"combine={name!r} {why}; choose one of: {', '.join(known)}")
    return [(name, known[name]) for name in names]


def _fits(name: str, record: RunRecord) -> bool:
    """Whether a rule makes sense of these answers; shapes alone would let signals vote."""
    assert record.answers is not None and record.targets is not None
    if record.metric.name == "mse":
        return name not in CLASS_RULES
    if record.metric.name == "accuracy":
        return name in VOTES or record.answers.ndim - 1 > record.targets.ndim
    return True
