"""What experts cost on the devices: decoding with them, against decoding as much with the base.

Both decode the same prompts b times on every device, with the same calls: b sets of weights, their
noise included, or one. Both can lie side by side or come one by one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from experiments.bench import timing
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, population
from thicket_jax.mapping import devices
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.functions import mapped
from thicket_jax.mapping.placement import Placement

WAYS = ("side by side", "one by one")


class Decoding(Protocol):
    """What is decoded: a task's problem, or anything that has these."""

    @property
    def params(self) -> Any:
        """θ."""

    @property
    def score_fn(self) -> Callable[..., Any]:
        """`(params, batch, id) -> outputs`."""

    @property
    def train(self) -> Any:
        """The batch: prompts laid out as chunks of rows."""


def measure(
    task: Decoding, laws: Sequence[str], sigma: float, block: int, calls: int, rounds: int
) -> dict[str, Any]:
    """Times experts of every law and the base, laid out in both ways, in turn.

    A sample is `calls` calls of `block` experts (or as many copies of the rows) on every device;
    the next call is launched before the last is fetched.

    Returns:
      JSON values: seconds per call with all samples, texts/s, the share of the base's throughput
      in the same layout and of the base's in its faster one.
    """
    mapper = devices.make_mapper()
    rows = block * int(np.prod(task.train["start"].shape))
    contenders: dict[str, Callable[[], float]] = {}
    for way in WAYS:
        for law in laws:
            experts = population(
                jax.random.key(0), calls * mapper.count * block, sigma, noise=Noise(law)
            )
            contenders[f"{law}, {way}"] = with_experts(task, mapper, experts, block, way)
        contenders[f"base, {way}"] = with_base(task, mapper, block, way, calls)
    for contender in contenders.values():  # once, untimed
        contender()
    out: dict[str, dict[str, Any]] = {}
    for name, values in timing.alternate(contenders, rounds).items():
        seconds = timing.summary([value / calls for value in values])
        rate = mapper.count * rows / seconds["median"]
        out[name] = {"seconds": seconds, "texts_per_s": rate}
    fastest = max(out[f"base, {way}"]["texts_per_s"] for way in WAYS)
    for name, row in out.items():
        base = out[f"base, {name.rpartition(', ')[2]}"]
        row["share"] = row["texts_per_s"] / base["texts_per_s"]
        row["share_of_fastest"] = row["texts_per_s"] / fastest
    return {"calls_per_sample": calls, "rows_per_device": rows, "rows": out}


def with_experts(
    task: Decoding,
    mapper: devices.Mapper,
    experts: Population,
    block: int,
    way: str,
    stream: bool = False,
) -> Callable[[], float]:
    """Returns what decodes with all experts, `block` of them a call on every device, timed."""
    decode = expert_map(
        mapped(task.score_fn, with_id=True),
        task.params,
        experts.noise,
        task.train,
        Placement(mapper, block if way == "side by side" else 1, stream=stream),
    )
    decode.prepare(experts)
    most = mapper.count * block
    return lambda: timing.seconds(lambda: [x.outputs for x in decode.chunks(experts, most)])


def with_base(
    task: Decoding, mapper: devices.Mapper, block: int, way: str, calls: int
) -> Callable[[], float]:
    """The same prompts `block` times: in one batch, or in chunks that follow one another."""
    batch = dict(task.train)
    for name in ("tokens", "start", "row"):
        value = np.asarray(batch[name])
        value = np.concatenate([value.reshape(-1, *value.shape[2:])] * block)
        chunks = 1 if way == "side by side" else block
        batch[name] = value.reshape(chunks, -1, *value.shape[1:])

    def decode(params: Any, data: Any, draw: jax.Array) -> Any:
        return task.score_fn(params, data, draw)

    shared = mapper.replicate((task.params, batch))
    draws = mapper.split(np.zeros(mapper.count, np.int32))
    program = mapper.compile(decode, shared, (draws,))

    def all_of_them() -> list[Any]:
        flying, fetched = None, []
        for _ in range(calls):
            launched = devices.launch(program, *shared, draws)
            if flying is not None:
                fetched.append(mapper.gather(flying))
            flying = launched
        return [*fetched, mapper.gather(flying)]

    return lambda: timing.seconds(all_of_them)
