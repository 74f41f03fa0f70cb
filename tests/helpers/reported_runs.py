"""Run records made by hand, for tests of what reports say of them."""

import json

import numpy as np

from thicket_jax.analysis import density
from thicket_jax.reports import report
from thicket_jax.reports.results import build_results
from thicket_jax.runs import record as run_record

ARRAYS = ("train", "base_train", "answers", "base_answers", "random_answers", "targets")
KEYS = {
    "task", "model", "num", "k", "sigma", "noise", "seed", "metric", "higher_is_better", "base",
    "best", "ensemble", "baselines", "density", "failed", "timing", "provenance",
}  # fmt: skip


def experts_json(scores, failed, sigmas, base, ids=None):
    ranks = density.rank(np.array(scores, float), np.array(failed))
    ids = range(len(scores)) if ids is None else ids
    rows = [
        {
            "id": i,
            "sigma": float(np.float32(sigma)),
            "sign": 1.0,
            "score": None if bad else float(score),
            "failed": bool(bad),
            "rank": int(rank),
        }
        for i, score, bad, sigma, rank in zip(ids, scores, failed, sigmas, ranks, strict=True)
    ]
    population = {"key": [0, 7], "prng": "threefry2x32", "noise": {"family": "gaussian"}}
    return {"population": population, "base": {"score": base}, "experts": rows}


def record(metric="accuracy", combines=("majority_vote",), k=(1, 3), **fields):
    """Five experts of labels on four items; expert 4 failed; the kept three are 2, 0, 3."""
    config = {
        "task": "digits",
        "model": "a tiny net",
        "options": {"num": 5, "k": list(k), "sigma": [0.001, 0.002], "seed": 7},
        "metric": metric,
        "combines": list(combines),
        "versions": {"jax": "0.10.2"},
        "fingerprints": {"params": "abc"},
        "notes": ["A note."],
        "command": "thicket run digits --num 5 --k 1,3",
    }
    scores, failed = [0.5, 0.25, 1.0, 0.5, np.nan], [False, False, False, False, True]
    sigmas = [0.001, 0.002, 0.001, 0.002, 0.001]
    values = {
        "config": config,
        "experts": experts_json(scores, failed, sigmas, base=0.5),
        "train": np.array(
            [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [np.nan] * 4], np.float32
        ),
        "base_train": np.array([1, 1, 0, 0], np.float32),
        "targets": np.array([0, 1, 2, 2]),
        "base_answers": np.array([0, 0, 2, 0]),  # right, wrong, right, wrong
        "answers": np.array([[0, 1, 0, 0], [0, 1, 2, 2], [1, 0, 2, 2]]),
        "random_answers": np.array([[0, 0, 0, 0]]),
        "timing": {"score_s": 2.0, "experts_per_s": 2.5},
    }
    return run_record.RunRecord(**(values | fields))


def save(run, folder):
    """Writes a run directory as a search does, without results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(run.config))
    (folder / "experts.json").write_text(json.dumps(run.experts))
    arrays = {name: getattr(run, name) for name in ARRAYS if getattr(run, name) is not None}
    arrays |= {f"exhibit_{name}": value for name, value in run.exhibits.items()}
    np.savez(folder / "items.npz", **arrays)
    return folder


def write(run, folder, **options):
    results = build_results(run)
    return results, report.write(run, save(run, folder), results, **options)


def arrays(**changes):
    def damage(path):
        with np.load(path) as file:
            values = dict(file)
        np.savez(path, **(values | changes))

    return damage


def signals_record(N=300, K=20, B=64, T=6, seed=0, **fields):
    """Experts with roll-out errors of enormous spread, graded by mse; three sigmas."""
    rng = np.random.default_rng(seed)
    sigmas = np.tile([0.001, 0.002, 0.004], N // 3)
    scores = -np.exp(rng.normal(-0.5 + 400 * sigmas, 0.8))
    scores[7] = -3.4e30
    failed = np.arange(N) % 50 == 49
    targets = rng.normal(size=(B, T)).astype(np.float32)
    errors = 0.2 + 0.02 * np.arange(K)[:, None, None]
    noise = rng.normal(size=(K, B, T)) * errors
    values = {
        "experts": experts_json(scores, failed, sigmas, base=-0.5),
        "train": np.repeat(scores[:, None], 8, 1).astype(np.float32),
        "base_train": np.full(8, -0.5, np.float32),
        "targets": targets,
        "base_answers": targets + 0.7 * rng.normal(size=(B, T)).astype(np.float32),
        "answers": (targets + noise).astype(np.float32),
        "random_answers": np.repeat(targets[None] + np.float32(1), 4, 0),
    }
    return record("mse", ("mean", "median"), (1, 5, 20), **(values | fields))
