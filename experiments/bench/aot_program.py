"""The project's own scoring program of a decoder, compiled for devices that are not here."""

import dataclasses
import functools
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thicket_jax as tj
from experiments.bench import chips as chips_of
from experiments.bench.roofline import Work
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import PRNGS
from thicket_jax.mapping import programs
from thicket_jax.mapping.devices import Mapper, is_out_of_memory
from thicket_jax.mapping.functions import mapped
from thicket_jax.text.config import Config
from thicket_jax.text.decode import decoder, sampling
from thicket_jax.text.model import abstract

DTYPE = "bfloat16"
LAWS = {
    "gaussian": tj.gaussian(),
    "rademacher": tj.rademacher(),
    "low rank 1": tj.low_rank(1, rounded=False),
}
_COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\w*\[([\d,]*)\]")


def compile_for(chips: chips_of.Chips, config: Config, law: str, work: Work) -> dict[str, Any]:
    """Compiles one call: `work.experts` experts a chip, on all chips, θ on each of them.

    Returns:
      JSON values, bytes of one chip: `compile_seconds` (with tracing), `code`, `arguments`,
      `outputs`, `temporaries`, `flops` and `bytes` as the compiler counts them (a loop's body once;
      None where it says nothing), `collectives`; or `too_large`, what it said of memory.
    """
    function, plan, mapper, shared = _described(chips, config, LAWS[law], work)
    how = programs.How(plan, PRNGS[0], mapper, work.experts, False, ())
    began = time.perf_counter()
    try:
        with chips_of.compiling_for(chips):
            program = programs.program(function, how, shared, programs.describe(shared)).run
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"too_large": _first_line(error)}
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    cost = _cost(program)
    return {
        "compile_seconds": seconds,
        "code": memory.generated_code_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "flops": cost.get("flops"),
        "bytes": cost.get("bytes accessed"),
        "collectives": collectives(program.as_text()),
    }


def _described(chips: chips_of.Chips, config: Config, law: Noise, work: Work) -> tuple:
    devices = tuple(chips_of.devices(chips))
    mapper = Mapper(devices, "shard_map" if len(devices) > 1 else "none")
    decode = decoder(config, work.new, DTYPE, unroll=False)
    params, batch = abstract(config, DTYPE), _batch(work)
    if law.needs_axes:
        law = dataclasses.replace(law, axes=tj.matrix_axes(decode, params, batch, np.int32(0)))
    plan = make_plan(params, law)
    rows = sum(map(len, plan.rows))
    words = np.asarray(jax.random.key_data(jax.random.key(0, impl=PRNGS[0])))
    whole = (params, batch, np.zeros(rows, np.float32), words)
    sharding: jax.sharding.Sharding = jax.sharding.SingleDeviceSharding(devices[0])
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("experts",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shared = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.result_type(x.dtype), sharding=sharding), whole
    )
    return mapped(decode, with_id=True), plan, mapper, shared


def _batch(work: Work) -> dict[str, Any]:
    shape = (work.turns, work.rows)
    return {
        "tokens": np.zeros((*shape, work.prompt), np.int32),
        "start": np.zeros(shape, np.int32),
        "row": np.arange(work.turns * work.rows, dtype=np.int32).reshape(shape),
        **sampling(0),
    }


def _cost(program: Any) -> Mapping[str, float]:
    try:
        found = program.cost_analysis()
    except Exception:  # of GPUs the compiler says nothing
        return {}
    found = found[0] if isinstance(found, list) else found
    return {name: float(value) for name, value in (found or {}).items() if value > 0}


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Returns of a compiled program's text: kind of collective → how many, and bytes of results."""
    found: dict[str, dict[str, int]] = {}
    for result, kind in _COLLECTIVE.findall(text):
        row = found.setdefault(kind, {"count": 0, "bytes": 0})
        row["count"] += 1
        row["bytes"] += sum(_bytes(*array) for array in _ARRAY.findall(result))
    return found


def _bytes(letters: str, bits: str, sides: str) -> int:
    del letters
    size = functools.reduce(lambda a, b: a * int(b), filter(None, sides.split(",")), 1)
    return size * int(bits) // 8


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
