"""One model's neighbourhood: how dense, how alike across tasks → one JSON record.

Shapes: N experts, M tasks, B items of each task.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.density_scaling import decoder
from experiments.density_scaling.dataset import Lines
from thicket_jax.analysis import density, discordance, reliability
from thicket_jax.experts.population import unperturbed
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.scoring.scores import Graded, concatenate

MARGINS = (0.0, 0.02, 0.05, 0.1)
SCORES = ("accuracy", "likelihood")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One population: its sigma, given or found.

    Attributes:
      sigma: absolute, or None.
      change: the mean KL of the answers' logits at which sigma is set, nats a token; or None.
    """

    sigma: float | None = None
    change: float | None = None

    @property
    def name(self) -> str:
        """Such as `sigma 0.01` or `KL 0.1`."""
        return f"KL {self.change:g}" if self.sigma is None else f"sigma {self.sigma:g}"


SETTINGS = (Setting(sigma=0.01), Setting(change=0.01))
CALIBRATION = {"num": 8, "tolerance": 0.02}  # experts, and how near the change must come


@dataclasses.dataclass(frozen=True)
class Counts:
    """How large every measurement is; part of what identifies a result.

    Attributes:
      num: experts of each setting, N.
      items: test lines of each task, B.
    """

    num: int = 500
    items: int = 40


def measure(
    width: int,
    params: Any,
    tests: Mapping[str, Lines],
    counts: Counts,
    settings: tuple[Setting, ...],
    seed: int,
    block_size: int | str = "auto",
) -> list[dict[str, Any]]:
    """Scores a population of each setting around one decoder, on every task at once.

    Args:
      width: of the decoder.
      params: θ.
      tests: name → B lines.
      counts: how many experts and items.
      settings: which populations.
      seed: of the experts' key.
      block_size: experts per vmap.

    Returns:
      One record for each setting: JSON values, see `summarise`.
    """
    batch = {
        k: np.concatenate([lines[k] for lines in tests.values()]) for k in ("tokens", "answer")
    }
    key = jax.random.key(seed)
    found = []
    scorer = None
    for setting in settings:
        began = time.perf_counter()
        sigma = setting.sigma
        if sigma is None:
            assert setting.change is not None
            sigma = tj.calibrate_sigma(
                decoder.answer_logits(width),
                params,
                decoder.with_places(batch),
                target=setting.change,
                key=jax.random.fold_in(key, 1),
                measure="kl",
                **CALIBRATION,
            )
        experts = tj.population(key, counts.num, sigma)
        if scorer is None:
            scorer = Scorer.placed(
                decoder.answers(width),
                params,
                experts.noise,
                batch,
                Placement(devices.make_mapper(None, "pmap", params), block_size),
                grade=_grade,
            )
        base = concatenate([part for _, part in scorer.stream(unperturbed(experts))])
        scores = concatenate([part for _, part in scorer.stream(experts)])
        outcomes = {
            "accuracy": (_by_task(base.items, tests), _by_task(scores.items, tests)),
            "likelihood": tuple(_by_task(x.columns["likelihood"], tests) for x in (base, scores)),
        }
        found.append(
            {
                "setting": setting.name,
                "sigma": float(sigma),
                "failed": int(scores.failed.sum()),
                **{
                    name: summarise(alone[0], many, scores.failed, sigma, tuple(tests))
                    for name, (alone, many) in outcomes.items()
                },
                "seconds": time.perf_counter() - began,
            }
        )
    return found


def _grade(outputs: np.ndarray) -> Graded:
    """Outputs [n, M·B, 2] → whether each answer is right, and its likelihood beside it."""
    return Graded(outputs[..., 0], columns={"likelihood": outputs[..., 1]})


def _by_task(items: np.ndarray | None, tests: Mapping[str, Lines]) -> np.ndarray:
    assert items is not None
    return items.reshape(len(items), len(tests), -1).astype(np.float64)


def summarise(
    base: np.ndarray,
    items: np.ndarray,
    failed: np.ndarray,
    sigma: float,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Returns what the outcomes of one population say, as JSON values.

    Args:
      base: float [M, B], of θ.
      items: float [N, M, B], of the experts; higher is better.
      failed: bool [N].
      sigma: of all of them.
      names: of the M tasks.

    Returns:
      `tasks`: for each task the base's and the mean expert's score, density at the margins (≥, >;
      Wilson's interval of > at m = 0), split-half reliability. `discordance`: D, its interval, D
      without item noise (None where a task's scores are all noise), and which tasks have an
      order at all.
    """
    scores, alone = items.mean(2), base.mean(1)
    sigmas = np.full(len(items), sigma, np.float32)
    tasks = {}
    for m, name in enumerate(names):
        curve = density.density_curve(scores[:, m], failed, sigmas, float(alone[m]), MARGINS)
        noise = reliability.split_half(items[:, m], failed, ranks=True, splits=20, draws=2)
        tasks[name] = {
            "base": _finite(alone[m]),
            "mean": _finite(scores[~failed, m].mean()) if not failed.all() else None,
            "density": {
                "margins": list(MARGINS),
                "ge": [row["fraction_ge"] for row in curve],
                "gt": [row["fraction_gt"] for row in curve],
                "interval_gt": _rounded(curve[0]["fraction_gt_interval"]),
            },
            "reliability": _finite(noise.value),
        }
    spread = discordance.discordance(scores, failed)
    clean = None
    used = [m for m in range(len(names)) if m not in spread.constant]
    values = [tasks[names[m]]["reliability"] for m in used]
    if len(used) > 1 and all(v is not None and v > 0.05 for v in values):
        clean = _finite(discordance.without_noise(spread.correlation[np.ix_(used, used)], values))
    return {
        "tasks": tasks,
        "discordance": {
            "value": _finite(spread.value),
            "interval": _rounded(spread.interval),
            "without_noise": clean,
            "tasks": [names[m] for m in used],
        },
    }


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [_finite(value) for value in values]


def _finite(value: float) -> float | None:
    """The number to five digits, as a file needs no more; None for what is not finite."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
