"""What a run directory says of its run: config, identity, experts.json and items.npz."""

import importlib.metadata
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thicket_jax.errors import RunError, ScoreError
from thicket_jax.experts.population import Population
from thicket_jax.runs import digests, files, lock
from thicket_jax.runs.log import RunLog, check_born, check_new
from thicket_jax.runs.record import RunRecord
from thicket_jax.scoring.scorer import ScorerProtocol
from thicket_jax.scoring.scores import Scores
from thicket_jax.search.problem import Problem, Settings
from thicket_jax.selection.ranking import ranking
from thicket_jax.selection.rounds import SelectionResult


def config_of(
    problem: Problem,
    experts: Population,
    settings: Settings,
    about: Mapping[str, Any],
    scorer: ScorerProtocol,
) -> dict[str, Any]:
    """Returns config.json: what the run is about, versions, key, noise law and fingerprints."""
    plan = scorer.expert_map.plan
    rule = settings.rule
    return {
        **about,
        **({} if rule is None else {"select": rule.to_json()}),
        "metric": problem.metric.name,
        "combines": list(problem.combines),
        "versions": {
            "thicket_jax": importlib.metadata.version("thicket-jax"),
            "jax": jax.__version__,
        },
        "platform": scorer.expert_map.placement.mapper.devices[0].platform,
        "prng": experts.to_json()["prng"],
        "key": experts.to_json()["key"],
        "noise": experts.noise.to_json(),
        "leaves": {
            "perturbed": sum(map(sum, plan.moving)),
            "left_out": [f"{path}: {reason}" for path, reason in plan.skipped],
        },
        "devices": scorer.expert_map.placement.mapper.count,
        "backend": scorer.expert_map.placement.mapper.backend,
        "block_size": scorer.expert_map.block(experts),
        "digests": digests.NAME,
        "fingerprints": {
            "params": files.fingerprint(problem.params),
            "train": files.fingerprint(problem.without_hints(problem.train)),
            "test": files.fingerprint(test_of(problem)),
            "population": files.fingerprint((experts.ids, experts.sigmas, experts.signs)),
        },
    }


def test_of(problem: Problem) -> Any:
    """Returns all that test answers are made from and graded against, as one pytree."""
    if problem.answering is None:
        return problem.test, problem.targets
    how = problem.answering
    return tuple(tuple(map(problem.without_hints, part)) for part in (how.pieces, how.sampled))


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that must be equal for a run to be resumed."""
    names = ["task", "options", "metric", "combines", "versions", "platform", "prng", "key"]
    names += ["noise", "fingerprints", *(["select"] if "select" in config else [])]
    return {name: config[name] for name in names}


def before(run_dir: pathlib.Path, settings: Settings) -> int | str:
    """Checks the run directory before anything expensive; returns the block size to use."""
    if not settings.resume:
        check_new(run_dir)
        return settings.placement.block_size
    check_born(run_dir)
    config = files.read_json(run_dir / "config.json", ("block_size",))
    check_unfinished(run_dir)
    if settings.placement.block_size != "auto":
        return settings.placement.block_size
    return int(config["block_size"])


def check_unfinished(run_dir: pathlib.Path) -> None:
    """Raises `RunError` where a run has ended, or somebody works on it."""
    if digests.is_finished(run_dir):
        raise RunError(
            f"{run_dir} is finished; thicket report {run_dir} makes its tables and figures again"
        )
    lock.Lock.check(run_dir)


def open_log(
    run_dir: pathlib.Path, settings: Settings, config: Mapping[str, Any], num: int
) -> RunLog:
    """Starts the run's log, or goes on with it if it is the same run; see `RunLog.reopen`."""
    if settings.resume:
        return RunLog.reopen(run_dir, identity_of(config), num)
    return RunLog.create(run_dir, config, identity_of(config), num)


def record_of(
    problem: Problem,
    experts: Population,
    scores: Scores,
    base: Scores,
    answers: Mapping[str, Any],
    config: Mapping[str, Any],
    timing: Mapping[str, float],
    raced: SelectionResult | None = None,
) -> RunRecord:
    """Puts what a search found into the record that the report reads.

    `answers` are the fields of `RunRecord` that the test items gave; empty without any. `raced`
    says how experts were selected in rounds, if they were.
    """
    if bool(base.failed[0]):
        raise ScoreError(
            "the unperturbed parameters have a NaN or infinite score; check params and score_fn"
        )
    rank = np.empty(len(experts), np.int64)
    rank[ranking(scores)] = np.arange(len(experts))
    recipe = experts.to_json()
    columns = {name: recipe.pop(name) for name in ("ids", "sigmas", "signs")}
    rows = [
        {
            "id": columns["ids"][i],
            "sigma": columns["sigmas"][i],
            "sign": columns["signs"][i],
            "score": None if scores.failed[i] else float(scores.values[i]),
            "failed": bool(scores.failed[i]),
            "rank": int(rank[i]),
        }
        for i in range(len(experts))
    ]
    table: dict[str, Any] = {
        "population": recipe,
        "base": {"score": float(base.values[0])},
        "experts": rows,
    }
    if raced is not None:
        assert base.items is not None and scores.seen is not None
        for row, seen in zip(rows, scores.seen.tolist(), strict=True):
            same = base.items[0][raced.order[:seen]]
            row |= {"items": seen, "base": float(same.mean(dtype=np.float64).astype(np.float32))}
        table["selection"] = {**config["select"], **raced.to_json()}
    return RunRecord(
        config=dict(config),
        experts=table,
        train=scores.items,
        base_train=None if base.items is None else base.items[0],
        train_strings=scores.answers,
        base_train_strings=None if base.answers is None else base.answers[0],
        train_columns=scores.columns,
        base_train_columns={name: column[0] for name, column in base.columns.items()},
        **answers,
        exhibits=dict(problem.exhibits),
        timing=dict(timing),
    )


def write(record: RunRecord, run_dir: pathlib.Path) -> None:
    """Writes experts.json and items.npz: everything that the report reads."""
    files.write_json(run_dir / "experts.json", record.experts)
    with files.replacing(run_dir / "items.npz") as file:
        np.savez_compressed(file, **record.arrays())  # type: ignore[arg-type]
