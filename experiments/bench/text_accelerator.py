"""Decoding with experts on an accelerator: 0.5B and 7B shapes, random weights, bfloat16.

Every shape is measured in a process of its own, since an accelerator's peak memory is a process's:
`python -m experiments.bench.text_accelerator --shape 0.5B` is one; it prints JSON.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.bench import random_checkpoint, timing
from experiments.common import machine
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.population import population
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import devices
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.mapping.functions import mapped
from thicket_jax.mapping.placement import Placement
from thicket_jax.text import prompts
from thicket_jax.text.cache import cache_bytes
from thicket_jax.text.decode import decoder, sampling

DTYPE, SIGMA = "bfloat16", 1e-3
LAWS = ("gaussian", "rademacher")
_NONE = 3  # a child's exit code where there is no accelerator
CACHE_SHARE = 0.25  # of the memory for one expert's cache, as `thicket run` takes it


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures both shapes; quick, a tiny one, on any platform.

    Raises:
      ArgumentError: there is no accelerator, and it is not quick.
    """
    del torch_python
    shapes = ("tiny",) if quick else ("0.5B", "7B")
    return {"dtype": DTYPE, "rows": {shape: _child(shape) for shape in shapes}, "targets": []}


def _child(shape: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "experiments.bench.text_accelerator", "--shape", shape]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode == _NONE:
        raise ArgumentError(
            "text_accelerator needs an accelerator, and JAX found none; --quick shows that it runs"
        )
    done.check_returncode()
    return dict(json.loads(done.stdout))


@dataclasses.dataclass(frozen=True)
class Size:
    """What is decoded, and how it is measured."""

    items: int = 200
    prompt_tokens: int = 128
    tokens: int = 128
    block_size: int | str = "auto"
    rounds: int = 5
    laws: tuple[str, ...] = LAWS


TINY = Size(items=4, prompt_tokens=8, tokens=4, block_size=1, rounds=2)


def decode_once(shape: str, size: Size) -> dict[str, Any]:
    """Decodes with two blocks of experts on every device, for each law; returns what it cost.

    Perturbing alone is one expert's θ + σ·ε, written to memory, on one device.
    """
    items, tokens = size.items, size.tokens
    with tempfile.TemporaryDirectory() as folder:
        config = random_checkpoint.write_config(pathlib.Path(folder), shape, DTYPE)
    params = random_checkpoint.random_params(config, DTYPE)
    mapper = devices.make_mapper()
    first = mapper.devices[0]
    room = CACHE_SHARE * devices.memory_bytes(first)
    one = cache_bytes(config, 1, size.prompt_tokens + tokens, DTYPE)
    chunks = -(-items // max(1, int(room // one)))
    draw = np.random.default_rng(0)
    batch = {
        **prompts.lay_out(
            draw.integers(0, config.vocab_size, (items, size.prompt_tokens)).tolist(),
            rows=-(-items // chunks),
            chunks=chunks,
            width=size.prompt_tokens,
            pad_id=0,
        ),
        **sampling(0),
    }
    laws = {}
    for law in size.laws:
        experts = population(jax.random.key(0), 2**15, SIGMA, noise=Noise(law))
        decode = expert_map(
            mapped(decoder(config, tokens, DTYPE), with_id=True),
            params,
            experts.noise,
            batch,
            Placement(mapper, size.block_size),
        )
        decode.prepare(experts)
        block = decode.block(experts)
        num = 2 * mapper.count * block
        alone = jax.jit(apply_noise)
        scales = leaf_scales(params, make_plan(params, experts.noise))

        def whole(some: Any = experts[:num], decode: Any = decode) -> list[Any]:
            return [chunk.outputs for chunk in decode.chunks(some)]

        def perturbing(some: Any = experts[0], alone: Any = alone, scales: Any = scales) -> Any:
            return alone(params, some, scales)

        contenders = {
            "whole": lambda whole=whole: timing.seconds(whole),
            "perturbing": lambda perturbing=perturbing: timing.seconds(perturbing),
        }
        for contender in contenders.values():
            contender()
        samples = timing.alternate(contenders, size.rounds)
        # Devices work side by side: an expert takes its device so long.
        expert = timing.summary([x * mapper.count / num for x in samples["whole"]])
        noise = timing.summary(samples["perturbing"])
        stats = first.memory_stats() or {}
        laws[law] = {
            "block_size": block,
            "compile_seconds": decode.compile_seconds,
            "seconds_per_expert_and_device": expert,
            "perturb_seconds": noise,
            "perturb_share": noise["median"] / expert["median"],
            "experts_per_s": mapper.count / expert["median"],
            "tokens_per_s": mapper.count * items * tokens / expert["median"],
            "peak_bytes": stats.get("peak_bytes_in_use"),
        }
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "items": items,
        "rows_at_once": int(batch["start"].shape[1]),
        "prompt_tokens": size.prompt_tokens,
        "tokens": tokens,
        "rounds": size.rounds,
        "devices": mapper.count,
        "memory_bytes": devices.memory_bytes(first),
        "laws": laws,
    }


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for shape, found in result["rows"].items():
        for law, row in found["laws"].items():
            peak = row["peak_bytes"]
            rows.append(
                [
                    f"{shape} ({found['parameters'] / 1e9:.2f} G parameters), {law}",
                    str(row["block_size"]),
                    number(row["tokens_per_s"]),
                    number(row["experts_per_s"]),
                    "-" if peak is None else number(peak / 2**30),
                    number(1e3 * row["perturb_seconds"]["median"]),
                    f"{100 * row['perturb_share']:.1f} %",
                ]
            )
    head = ["shape, noise", "block size", "tokens/s", "experts/s", "peak memory, GiB"]
    head += ["ms to perturb", "share of the time"]
    one = next(iter(result["rows"].values()))
    about = (
        f"Random weights in {result['dtype']}, {one['items']} prompts of {one['prompt_tokens']} "
        f"tokens, {one['tokens']} new ones each, greedy; {one['devices']} device(s), medians of "
        f"{one['rounds']} rounds. Perturbing is timed alone, one expert with its parameters "
        "written to memory; its share is of an expert's whole time on a device."
    )
    return about + "\n\n" + markdown_table(head, rows)


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Decodes with one shape and prints JSON.")
    parser.add_argument("--shape", required=True, choices=list(random_checkpoint.SHAPES))
    shape = parser.parse_args(arguments).shape
    machine.start_devices()
    if shape != "tiny" and machine.label() == "cpu":
        return _NONE
    print(json.dumps(decode_once(shape, TINY if shape == "tiny" else Size())))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
