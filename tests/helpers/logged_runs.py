"""Run records made of arrays, for tests of what is read from logs."""

import numpy as np

from thicket_jax.analysis import density
from thicket_jax.runs.record import RunRecord


def logged_run(train, sigmas, base=0.0, task="digits", metric="accuracy", key=(0, 7), **fields):
    """A record whose scores are the means of `train` [N, B]; rows with a NaN mean have failed."""
    train = np.asarray(train, np.float32)
    scores = train.mean(1).astype(np.float64)
    failed = ~np.isfinite(scores)
    ranks = density.rank(scores, failed)
    rows = [
        {
            "id": i,
            "sigma": float(np.float32(sigma)),
            "sign": 1.0,
            "score": None if bad else float(score),
            "failed": bool(bad),
            "rank": int(rank),
        }
        for i, (score, bad, sigma, rank) in enumerate(
            zip(scores, failed, sigmas, ranks, strict=True)
        )
    ]
    population = {"key": list(key), "prng": "threefry2x32", "noise": {"family": "gaussian"}}
    return RunRecord(
        config={"task": task, "options": {}, "metric": metric, "combines": ["majority_vote"]},
        experts={"population": population, "base": {"score": base}, "experts": rows},
        train=train,
        **fields,
    )
