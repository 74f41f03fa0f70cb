"""Experts of a wide MLP as a share of the throughput of the same forward passes without noise.

Every expert has its own input rows, so that without noise there are population x batch different
rows and one matrix product a layer for all of them: no layer that experts could share is counted.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import low_rank_floor, mlp, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.low_rank import FACTORS
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.population import Population
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import devices, implicit
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer

SIGMA = 0.01
SHAPES = ((64, 32), (64, 8), (256, 1), (16, 128))
"""Population x batch."""
LIMITS = {"rademacher": (0.94, 0.88, 0.80, 0.95), "gaussian": (0.90, 0.80, 0.40, 0.92)}
PURE = "without noise"
_DENSE_BLOCK = 8  # experts per device: dense ones are so slow that a few are enough
_ROWS_A_CALL = 2**14


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures every shape: low-rank of rank 1, dense and streamed, and through `tj.score`.

    Args:
      quick: tiny, one shape, one dense law.
      torch_python: not used.

    Returns:
      JSON values: for each shape the seconds of every contender with all samples, its rows a
      second, its share of the throughput without noise with the spread over rounds, and the
      floor of the low-rank laws, counted; targets.
    """
    del torch_python
    width, layers = (16, 2) if quick else (mlp.WIDTH, mlp.LAYERS)
    shapes, rounds, a_call = (((16, 2),), 2, 64) if quick else (SHAPES, 7, _ROWS_A_CALL)
    mapper = devices.make_mapper()
    params = mlp.parameters(width, layers)
    rates = low_rank_floor.rates(mapper, quick)
    found, targets = {}, []
    for index, (num, batch) in enumerate(shapes):
        bench = _Bench(mapper, params, num, batch, max(1, a_call // (num * batch)))
        rows = _measure(bench, FACTORS[1:] if quick else FACTORS, rounds)
        floors = {
            factors: low_rank_floor.floor(
                rates,
                factors,
                low_rank_floor.count(factors, num, num * batch, width, layers),
                num * batch / rows[PURE]["rows_per_s"],
            )
            for factors in FACTORS
        }
        found[f"{num} x {batch}"] = {"rows": rows, "floors": floors}
        targets += [
            timing.target(
                f"low-rank, {factors}, {num} x {batch}: share of the throughput without noise",
                rows[_low_rank(factors)]["share"]["median"],
                limits[index],
                at_least=True,
            )
            for factors, limits in LIMITS.items()
        ]
    return {
        "width": width,
        "layers": layers,
        "rounds": rounds,
        "devices": mapper.count,
        "rates": rates,
        "shapes": found,
        "targets": targets,
    }


def _low_rank(factors: str) -> str:
    return f"low-rank, {factors}"


class _Bench:
    """One shape: P experts with B rows each, split over the devices, M blocks a call."""

    def __init__(
        self, mapper: devices.Mapper, params: mlp.Params, num: int, batch: int, blocks: int
    ) -> None:
        """Puts parameters on the devices."""
        self.mapper, self.batch, self.blocks = mapper, batch, blocks
        self.experts = max(1, num // mapper.count)  # of a block on one device
        self.width = params["w0"].shape[0]
        self.params = mapper.replicate(params)

    def pure(self) -> tuple[Callable[[], float], int]:
        """All rows of a block in one batch; returns it with its rows a call."""

        def block(params: Any, key: Any, ids: Any, x: jax.Array) -> jax.Array:
            return mlp.score_fn(params, x.reshape(-1, x.shape[-1]))

        return self._timed(block, Noise("gaussian"), self.experts, self.blocks)

    def perturbed(
        self, noise: Noise, way: str, experts: int, blocks: int
    ) -> tuple[Callable[[], float], int]:
        """Blocks of experts; `way` is `vmap` or `streamed`, one after the other."""
        plan = make_plan(self.params, noise)
        scales = leaf_scales(self.params, plan)
        streamed = way == "streamed"

        def one(expert: Population, params: Any, x: jax.Array) -> jax.Array:
            if streamed or noise.factored:
                return implicit.evaluate(
                    mlp.score_fn, params, expert, scales, plan, x, stream=streamed
                )
            return mlp.score_fn(apply_noise(params, expert, scales, plan), x)

        def block(params: Any, key: Any, ids: Any, x: jax.Array) -> jax.Array:
            ones = np.ones(experts, np.float32)

            def of_id(row: tuple) -> jax.Array:
                expert = Population(key, row[0], SIGMA * ones[0], ones[0], noise)
                return one(expert, params, row[1])

            return jax.lax.map(of_id, (ids, x)) if streamed else jax.vmap(of_id)((ids, x))

        return self._timed(block, noise, experts, blocks)

    def _timed(
        self, block: Callable[..., Any], noise: Noise, experts: int, blocks: int
    ) -> tuple[Callable[[], float], int]:
        """Compiles a call of M blocks, one after another, on every device."""
        D = self.mapper.count

        def program(params: Any, key: Any, ids: Any, x: Any) -> Any:
            return jax.lax.map(lambda row: block(params, key, *row), (ids, x))

        ids = np.arange(D * blocks * experts, dtype=np.int32).reshape(D, blocks, experts)
        x = mlp.inputs(D, blocks, experts, self.batch, self.width)
        shared = (self.params, self.mapper.replicate(jax.random.key(0)))
        split = self.mapper.split((ids, x))
        compiled = self.mapper.compile(program, shared, split)
        return (
            lambda: timing.seconds(lambda: devices.launch(compiled, *shared, *split)),
            D * blocks * experts * self.batch,
        )

    def through_score(self, noise: Noise) -> tuple[Callable[[], float], int]:
        """The same numbers of experts and rows by the toolkit's own scoring, on shared inputs."""
        D, num = self.mapper.count, self.mapper.count * self.experts * self.blocks
        experts = tj.population(jax.random.key(0), num, SIGMA, noise=noise)
        x = mlp.inputs(self.batch, self.width)
        scorer = Scorer.placed(
            mlp.score_fn,
            self.params,
            experts.noise,
            x,
            Placement(self.mapper, self.experts),
            keep_items=False,
        )
        scorer.expert_map.prepare(experts)
        assert scorer.expert_map.block(experts) * D * self.blocks == num
        return (
            lambda: timing.seconds(lambda: [part.values for _, part in scorer.stream(experts)]),
            num * self.batch,
        )


def _measure(bench: _Bench, dense: tuple[str, ...], rounds: int) -> dict[str, dict[str, Any]]:
    entries = {PURE: bench.pure()}
    few = min(bench.experts, _DENSE_BLOCK)
    for factors in FACTORS:
        noise = tj.low_rank(1, factors=factors)
        whole = (bench.experts, bench.blocks)
        entries[_low_rank(factors)] = bench.perturbed(noise, "vmap", *whole)
        entries[f"low-rank, {factors}, tj.score"] = bench.through_score(noise)
        if factors not in dense:
            continue
        for way, name in (("vmap", "dense"), ("streamed", "streamed")):
            entries[f"{name}, {factors}"] = bench.perturbed(Noise(factors), way, few, 1)
    for contender, _ in entries.values():  # once, untimed
        contender()
    samples = timing.alternate({name: entry[0] for name, entry in entries.items()}, rounds)
    out = {}
    for name, values in samples.items():
        rows = entries[name][1]
        seconds = timing.summary(values)
        out[name] = {
            "seconds": seconds,
            "rows_per_call": rows,
            "rows_per_s": rows / seconds["median"],
            "share": timing.share(values, samples[PURE], rows / entries[PURE][1]),
        }
    return out


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows, floors = [], []
    for shape, found in result["shapes"].items():
        for name, row in found["rows"].items():
            share = row["share"]
            rows.append(
                [
                    f"{shape}; {name}",
                    number(1e6 * row["seconds"]["median"] / row["rows_per_call"]),
                    number(row["rows_per_s"]),
                    percent(share["median"]),
                    f"{percent(share['min'])} to {percent(share['max'])}",
                ]
            )
        for factors, floor in found["floors"].items():
            measured = found["rows"][_low_rank(factors)]["share"]["median"]
            floors.append(
                [
                    f"{shape}; {factors}",
                    number(1e3 * floor["pure_seconds"]),
                    number(1e3 * floor["pure_seconds"] / measured),
                    f"{floor['words']:,}",
                    number(1e3 * floor["draw_seconds"]),
                    number(floor["operations"] / 1e6),
                    number(1e3 * floor["operation_seconds"]),
                    number(floor["bytes"] / 2**20),
                    number(1e3 * floor["byte_seconds"]),
                    percent(floor["share"]),
                    percent(measured),
                ]
            )
    head = ["population x batch; noise", "µs per row", "rows/s", "share", "spread"]
    floor_head = ["population x batch; factors", "ms without noise", "ms measured", "noise words"]
    floor_head += ["ms to draw", "thin M operations", "ms at the peak", "MiB read again"]
    floor_head += ["ms to read", "share at most", "share measured"]
    rates = result["rates"]
    return "\n\n".join(
        [
            f"An MLP of width {result['width']} and {result['layers']} layers, float32, rank 1, "
            f"{result['devices']} device(s), {result['rounds']} alternated rounds. Every expert "
            "has rows of its own, except under `tj.score`: there all experts see the same rows, so "
            "that the first layer's product is shared. Dense and streamed blocks have at most "
            f"{_DENSE_BLOCK} experts a device. Share: of the rows a second without noise.",
            markdown_table(head, rows),
            "What low-rank noise must cost at least, a block of the whole population: its words "
            "are drawn, the thin products are multiplied and added, and every layer's input is "
            "read once more than without noise. Each at the best rate measured in this run: "
            f"{number(rates['gaussian'] / 1e6)} M Gaussian and "
            f"{number(rates['rademacher'] / 1e6)} M ±1 values/s, {number(rates['flops'] / 1e9)} "
            f"Gflop/s, {number(rates['bytes'] / 1e9)} GB/s. Multiplying overlaps with reading, so "
            "only the slower of the two counts.",
            markdown_table(floor_head, floors),
        ]
    )


def percent(share: float) -> str:
    """Returns a share in percent; two digits below 10 %."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{number(100 * share, 2)} %"
