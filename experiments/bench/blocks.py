"""How many experts should a block have? A sweep, and how far `auto` is from the best."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import mlp, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.noise import Noise
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.tasks.signals import model as signal_model

SIGMA = 0.01
BLOCKS = (1, 2, 4, 8, 16, 32, 64)
LAWS = {"dense": tj.gaussian(), "low-rank": tj.low_rank(1)}


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Scores one population with every block size and with `auto`, in turn.

    Args:
      quick: one model and one law, tiny, and two block sizes.
      torch_python: not used.

    Returns:
      JSON values: for both models and both laws, seconds per expert of every block size with all
      samples and its time over the best one's; what `auto` took.
    """
    del torch_python
    mapper = devices.make_mapper()
    blocks, rounds = ((1, 2), 2) if quick else (BLOCKS, 5)
    num = blocks[-1] * mapper.count
    found = {}
    for model, work in _models(quick).items():
        for law, noise in list(LAWS.items())[: 1 if quick else 2]:
            found[f"{model}, {law}"] = _sweep(work, noise, mapper, blocks, num, rounds)
    return {
        "experts": num,
        "devices": mapper.count,
        "rounds": rounds,
        "sweeps": found,
        "targets": [],
    }


def _models(quick: bool) -> dict[str, tuple[Callable[..., Any], Any, Any]]:
    """Returns name → (score function, parameters, batch)."""
    batch, width, layers = (2, 16, 2) if quick else (32, mlp.WIDTH, mlp.LAYERS)
    wide = {
        f"MLP of width {width}, {batch} rows": (
            mlp.score_fn,
            mlp.parameters(width, layers),
            mlp.inputs(batch, width),
        )
    }
    if quick:
        return wide
    items, steps = 64, 60
    draw = np.random.default_rng(0)
    sequences = {
        "context": draw.standard_normal((items, signal_model.CONTEXT), np.float32),
        "future": draw.standard_normal((items, steps), np.float32),
    }
    return {
        f"roll-out, {items} sequences of {steps}": (
            signal_model.roll_out_score,
            signal_model.initialise(jax.random.key(0), "xavier"),
            sequences,
        ),
        **wide,
    }


def _sweep(
    work: tuple[Callable[..., Any], Any, Any],
    noise: Noise,
    mapper: devices.Mapper,
    blocks: tuple[int, ...],
    num: int,
    rounds: int,
) -> dict[str, Any]:
    experts = tj.population(jax.random.key(1), num, SIGMA, noise=noise)
    contenders: dict[str, Callable[[], float]] = {}
    sizes: dict[str, int] = {}
    for block in (*blocks, "auto"):
        size: Any = block
        scorer = Scorer.placed(*work[:2], experts.noise, work[2], Placement(mapper, size))
        scorer.expert_map.prepare(experts)
        sizes[str(block)] = scorer.expert_map.block(experts)
        contenders[str(block)] = _timed(scorer, experts)
    for contender in contenders.values():  # once, untimed
        contender()
    samples = timing.alternate(contenders, rounds)
    rows = {
        name: {
            "block": sizes[name],
            "seconds_per_expert": timing.summary([x / num for x in values]),
        }
        for name, values in samples.items()
    }
    fixed = [name for name in rows if name != "auto"]
    best = min(fixed, key=lambda name: rows[name]["seconds_per_expert"]["median"])
    for name, row in rows.items():
        row["share"] = timing.share(samples[name], samples[best])
    return {"best": best, "rows": rows}


def _timed(scorer: Scorer, experts: tj.Population) -> Callable[[], float]:
    return lambda: timing.seconds(lambda: [part.values for _, part in scorer.stream(experts)])


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows, autos = [], []
    for name, sweep in result["sweeps"].items():
        for block, row in sweep["rows"].items():
            time, share = row["seconds_per_expert"], row["share"]
            auto = f"auto: {row['block']}"
            rows.append(
                [
                    f"{name}; {auto if block == 'auto' else block}",
                    number(1e3 * time["median"]),
                    f"{number(1e3 * time['min'])} to {number(1e3 * time['max'])}",
                    f"{100 * share['median']:.0f} %",
                ]
            )
        taken = sweep["rows"]["auto"]
        autos.append(
            f"{name}: the best is {sweep['best']}, `auto` takes {taken['block']}, "
            f"{100 * taken['share']['median']:.0f} % of the best one's throughput"
        )
    head = ["model, noise; block size", "ms per expert, median", "spread", "throughput of the best"]
    about = (
        f"{result['experts']} experts a sample on {result['devices']} device(s), "
        f"{result['rounds']} alternated rounds, gaussian noise, dense or of rank 1; 1-D roll-out "
        "and wide MLP on shared inputs."
    )
    return "\n\n".join([about, markdown_table(head, rows), "; ".join(autos) + "."])
