"""`w + σ·ε` on 16 M float32 parameters, against a plain copy-and-add in the same run."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import timing
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.laws import DENSE
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.low_rank import FACTORS
from thicket_jax.experts.noise import Noise, low_rank
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.population import PRNGS, population
from thicket_jax.experts.scales import leaf_scales

LAWS = {
    **{name: Noise(name) for name in DENSE},
    **{f"low_rank 1, {factors}": low_rank(1, factors=factors) for factors in FACTORS},
}
"""All laws, as `perturb` builds them."""
LIMITS = {"rademacher": 1.3, "gaussian": 4.5}
TEMPORARIES = 0.1  # of a copy of the parameters, at most
_DEFAULT = PRNGS[0]


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures every law with every key implementation, in one leaf and in several.

    Args:
      quick: one small leaf, and the default key implementation alone.
      torch_python: not used.

    Returns:
      JSON values: seconds of each call on one device, bytes of temporaries that the compiled
      program keeps beside its input and its output, ratios to copy-and-add, targets.
    """
    del torch_python
    side, split, rounds = (256, 2, 2) if quick else (4096, 4, 9)
    prngs = (_DEFAULT,) if quick else PRNGS
    layouts = {}
    kinds = {
        f"1 leaf of {side} x {side}": [(side, side)],
        f"{split**2} leaves of {side // split} x {side // split}": (
            [(side // split, side // split)] * split**2
        ),
    }
    for name, shapes in list(kinds.items())[: 1 if quick else 2]:
        layouts[name] = _layout(shapes, prngs, rounds)
    targets = [
        timing.target(
            f"{law}: times of copy-and-add, default key, {layout}",
            table[f"{law}, {_DEFAULT}"]["ratio"],
            limit,
            at_least=False,
        )
        for layout, table in layouts.items()
        for law, limit in LIMITS.items()
    ]
    targets += [
        timing.target(
            f"{law}: temporaries, default key, largest of all layouts, copies of the parameters",
            max(t[f"{law}, {_DEFAULT}"]["temporary_bytes"] for t in layouts.values())
            / (4 * side * side),
            TEMPORARIES,
            at_least=False,
        )
        for law in LAWS
    ]
    return {"parameters": side * side, "rounds": rounds, "layouts": layouts, "targets": targets}


def _layout(shapes: list[tuple[int, int]], prngs: Sequence[str], rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    params = {f"w{i}": jnp.asarray(rng.random(s, np.float32)) for i, s in enumerate(shapes)}
    contenders: dict[str, Callable[[], float]] = {}
    temporary: dict[str, int] = {}

    def enter(name: str, function: Callable[..., Any], *arguments: Any) -> None:
        program = jax.jit(function).lower(params, *arguments).compile()
        stats = program.memory_analysis()
        temporary[name] = 0 if stats is None else int(stats.temp_size_in_bytes)
        jax.block_until_ready(program(params, *arguments))
        contenders[name] = lambda: timing.seconds(lambda: program(params, *arguments))

    enter("copy-and-add", lambda tree, c: jax.tree.map(lambda w: w + c, tree), jnp.float32(1e-3))
    for law, noise in LAWS.items():
        for prng in prngs:
            expert = population(jax.random.key(0, impl=prng), 1, 1e-3, noise=noise)[0]
            scales = leaf_scales(params, make_plan(params, noise))
            enter(f"{law}, {prng}", apply_noise, expert, scales)
    samples = timing.alternate(contenders, rounds)
    own = {name: timing.summary(values) for name, values in samples.items()}
    plain = own["copy-and-add"]["median"]
    return {
        name: {**row, "ratio": row["median"] / plain, "temporary_bytes": temporary[name]}
        for name, row in own.items()
    }


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for layout, table in result["layouts"].items():
        for name, row in table.items():
            rows.append(
                [
                    f"{name}; {layout}",
                    number(1e3 * row["median"]),
                    f"{number(1e3 * row['min'])} to {number(1e3 * row['max'])}",
                    number(row["ratio"]),
                    number(row["temporary_bytes"] / (4 * result["parameters"])),
                ]
            )
    head = ["`w + σ·ε`", "ms, median", "ms, spread", "times of copy-and-add", "temporaries, copies"]
    return (
        f"{result['parameters']:,} float32 parameters, {result['rounds']} alternated rounds; "
        "temporaries in copies of the parameters.\n\n" + markdown_table(head, rows)
    )
