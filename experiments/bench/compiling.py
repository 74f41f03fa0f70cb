"""How long does compiling take: against the experts, the block size and the depth?"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

import thicket_jax as tj
from experiments.bench import mlp, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.noise import Noise
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer

SIGMA, WIDTH, BATCH = 0.01, 64, 16
LAWS = {"dense": tj.gaussian(), "low-rank": tj.low_rank(1)}
PLAIN = "without noise"


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Compiles the scoring program of every setting, in turn, every time as if new.

    Returns:
      JSON values: for every setting (experts, block size, layers) and law the seconds of compiling
      with all samples, as a ratio to compiling the function alone at the same depth.
    """
    del torch_python
    settings, rounds = [(64, 2, 2)], 1
    if not quick:
        middle, rounds = (1024, 8, 4), 5
        settings = [(16, 8, 4), middle, (65536, 8, 4)]
        settings += [(1024, 1, 4), (1024, 64, 4), (1024, 8, 1), (1024, 8, 16)]
    mapper = devices.make_mapper()
    contenders = {
        _name(law, setting): _compiling(noise, mapper, *setting)
        for law, noise in LAWS.items()
        for setting in settings
    }
    depths = sorted({layers for _, _, layers in settings})
    contenders |= {f"{PLAIN}, {layers}": _plain(mapper, layers) for layers in depths}
    with _without_cache():
        next(iter(contenders.values()))()  # once, untimed: imports and first use
        samples = timing.alternate(contenders, rounds)
    rows = []
    for law in LAWS:
        for num, block, layers in settings:
            own = samples[_name(law, (num, block, layers))]
            plain = samples[f"{PLAIN}, {layers}"]
            rows.append(
                {
                    "law": law,
                    "experts": num,
                    "block": block,
                    "layers": layers,
                    "seconds": timing.summary(own),
                    "ratio": timing.share(plain, own),
                }
            )
    alone = {str(n): timing.summary(samples[f"{PLAIN}, {n}"]) for n in depths}
    return {"rounds": rounds, "rows": rows, "alone": alone, "targets": []}


def _name(law: str, setting: tuple[int, int, int]) -> str:
    return ", ".join([law, *map(str, setting)])


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Nothing is read from a persistent cache of compiled programs."""
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _compiling(
    noise: Noise, mapper: devices.Mapper, num: int, block: int, layers: int
) -> Callable[[], float]:
    params, x = mlp.parameters(WIDTH, layers), mlp.inputs(BATCH, WIDTH)
    experts = tj.population(jax.random.key(0), num * mapper.count, SIGMA, noise=noise)

    def once() -> float:
        scorer = Scorer.placed(
            mlp.new_score_fn(), params, experts.noise, x, Placement(mapper, block)
        )
        scorer.expert_map.prepare(experts)
        return scorer.expert_map.compile_seconds

    return once


def _plain(mapper: devices.Mapper, layers: int) -> Callable[[], float]:
    """The score function alone, on the same devices."""
    params, x = mlp.parameters(WIDTH, layers), mlp.inputs(mapper.count, BATCH, WIDTH)
    shared, split = (mapper.replicate(params),), (mapper.split(x),)

    def compile_it() -> None:
        mapper.compile(mlp.new_score_fn(), shared, split)

    return lambda: timing.seconds(compile_it)


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for row in result["rows"]:
        time, ratio = row["seconds"], row["ratio"]
        rows.append(
            [
                f"{row['law']}; {row['experts']:,}; {row['block']}; {row['layers']}",
                number(time["median"]),
                f"{number(time['min'])} to {number(time['max'])}",
                number(ratio["median"]),
            ]
        )
    for layers, time in result["alone"].items():
        spread = f"{number(time['min'])} to {number(time['max'])}"
        rows.append([f"{PLAIN}; -; -; {layers}", number(time["median"]), spread, "1.00"])
    head = ["noise; experts a device; block size; layers (leaves)", "s compiling, median"]
    head += ["spread", "times of the function alone"]
    return (
        f"An MLP of width {WIDTH} on {BATCH} rows; tracing included, no cache, {result['rounds']} "
        "alternated rounds. Leaves of this size and of one shape are moved in one loop. "
        "Alone: the score function of one set of parameters, on the same "
        "devices.\n\n" + markdown_table(head, rows)
    )
