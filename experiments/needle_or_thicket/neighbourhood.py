"""How dense good experts are, and how the error grows with distance, around one base.

One population over all sigmas of the grid and those at which the base's next value changes by a
given amount, scored by its roll-outs in one program. Shapes: N experts, D sequences.
"""

import time
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.needle_or_thicket import bases
from experiments.needle_or_thicket.size import Size
from thicket_jax.analysis.density import density_curve
from thicket_jax.tasks.signals.model import next_value

_CALIBRATION = 0x80000003  # a key of its own: calibration tries other experts than it calibrates
_TRIED = 16


def measure(
    base: str, target: str, seed: int, size: Size, cache: str, block_size: int | str = "auto"
) -> dict[str, Any]:
    """Scores the neighbourhood of one base.

    Returns:
      JSON values. `rows`, one for each sigma: `sigma`, `change` (None on the grid), `n`, `ge` and
      `gt`, how many experts have at most, and less than, 1 − m of the base's error for each margin
      m; `median`, `low`, `high` and `best`, the 50, 10 and 90 % points and the least of the
      experts' errors over the base's. `norm` is ‖θ‖.
    """
    began = time.perf_counter()
    task = bases.start(base, target, seed, size, cache)
    key = jax.random.key(seed)
    calibrated = [
        tj.calibrate_sigma(
            next_value,
            task.problem.params,
            task.problem.train["context"],
            target=change,
            key=jax.random.fold_in(key, _CALIBRATION),
            num=_TRIED,
            block_size=1,
        )
        for change in size.changes
    ]
    changes = dict(zip(np.float32(calibrated).tolist(), size.changes, strict=True))
    sigmas = (*size.sigmas, *calibrated)
    experts = tj.population(key, size.per_sigma * len(sigmas), sigmas)
    own = -float(
        np.asarray(task.problem.score_fn(task.problem.params, task.problem.train)).mean(
            dtype=np.float32
        )
    )
    scores = tj.score(
        task.problem.score_fn,
        task.problem.params,
        experts,
        task.problem.train,
        block_size=block_size,
    )
    errors = np.where(scores.failed, np.inf, -scores.values.astype(np.float64))
    drawn = np.asarray(experts.sigmas)
    curve = density_curve(
        scores.values, scores.failed, drawn, -own, [m * own for m in size.margins]
    )
    rows = []
    for sigma in np.unique(drawn):
        at = [row for row in curve if np.float32(row["sigma"]) == sigma]
        ratios = errors[drawn == sigma] / own
        middle = np.quantile(ratios, [0.5, 0.1, 0.9], method="nearest")
        named = zip(
            ("median", "low", "high", "best"), [*map(float, middle), ratios.min()], strict=True
        )
        rows.append(
            {
                "sigma": float(str(sigma)),
                "change": changes.get(float(sigma)),
                "n": at[0]["n"],
                "ge": [round(row["fraction_ge"] * row["n"]) for row in at],
                "gt": [round(row["fraction_gt"] * row["n"]) for row in at],
                **{name: _rounded(value) for name, value in named},
            }
        )
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(task.problem.params)]
    return {
        "base": base,
        "target": target,
        "seed": seed,
        "error": own,
        "norm": float(np.sqrt(sum((leaf**2).sum() for leaf in leaves))),
        "parameters": sum(leaf.size for leaf in leaves),
        "failed": int(scores.failed.sum()),
        "rows": rows,
        "seconds": time.perf_counter() - began,
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
