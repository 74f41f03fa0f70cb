"""What a call costs on the host: `tj.score` and `tj.Scorer` beside the same work jitted by hand."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import thicket_jax as tj
from experiments.bench import timing
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.population import Population
from thicket_jax.experts.scales import leaf_scales

EXPERTS, SIGMA = 16, 0.1
# Leaves → ms at most: of a scorer over the jitted call, of `tj.score` in all.
LIMITS = {1: (0.3, 2.0), 150: (1.0, 8.0)}
QUICK = {1: LIMITS[1], 2: LIMITS[150]}


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Times calls on one device that score few experts of a function that does next to nothing.

    Returns:
      JSON values: for each number of leaves, milliseconds of a call with all samples: the same
      experts scored by one jitted function, by a scorer that was prepared, and by `tj.score` with a
      stated block size and with `"auto"`.
    """
    del torch_python
    rounds = 5 if quick else 50
    rows: dict[str, dict[str, Any]] = {}
    targets = []
    for leaves, (over, whole) in (QUICK if quick else LIMITS).items():
        contenders = _contenders(leaves)
        for contender in contenders.values():  # once, untimed
            contender()
        found = {
            name: timing.summary([1e3 * x for x in samples])
            for name, samples in timing.alternate(contenders, rounds).items()
        }
        rows[str(leaves)] = found
        plain = found["jitted"]["samples"]
        scorer = statistics.median(
            a - b for a, b in zip(found["scorer"]["samples"], plain, strict=True)
        )
        at = f"with {leaves} lea{'f' if leaves == 1 else 'ves'}"
        targets.append(timing.target(f"ms, scorer over jitted, {at}", scorer, over, at_least=False))
        targets += [
            timing.target(
                f"ms, tj.score, {way}, {at}",
                found[f"score, {way}"]["median"],
                whole,
                at_least=False,
            )
            for way in ("stated block", "auto")
        ]
    return {"experts": EXPERTS, "rounds": rounds, "rows": rows, "targets": targets}


def _contenders(leaves: int) -> dict[str, Callable[[], float]]:
    params = {f"w{i}": jnp.full(3, float(i)) for i in range(leaves)}
    batch, experts = jnp.ones(3), tj.population(jax.random.key(0), EXPERTS, SIGMA)
    one = jax.devices()[:1]
    scorer = tj.Scorer(_score, params, tj.gaussian(), batch, block_size=EXPERTS, devices=one)
    score = functools.partial(tj.score, _score, params, experts, batch, devices=one)
    plan = make_plan(params, experts.noise)
    scales = leaf_scales(params, plan)

    @jax.jit
    def by_hand(params: Any, batch: Any, experts: Population) -> jax.Array:
        axes: Any = (Population(None, 0, 0, 0, experts.noise),)  # type: ignore[arg-type]
        return jax.vmap(lambda e: _score(apply_noise(params, e, scales, plan), batch), axes)(
            experts
        )

    return {
        "jitted": lambda: timing.seconds(lambda: by_hand(params, batch, experts)),
        "scorer": lambda: timing.seconds(lambda: scorer(experts).values),
        "score, stated block": lambda: timing.seconds(lambda: score(block_size=EXPERTS).values),
        "score, auto": lambda: timing.seconds(lambda: score().values),
    }


def _score(params: Any, batch: Any) -> jax.Array:
    return -sum((jnp.square(leaf - batch).sum() for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [
        [leaves, name, number(entry["median"]), number(entry["min"]), number(entry["max"])]
        for leaves, found in result["rows"].items()
        for name, entry in found.items()
    ]
    head = f"{result['experts']} experts, ms a call, median of {result['rounds']} in turn.\n\n"
    return head + markdown_table(["leaves", "call", "median", "least", "most"], rows)
