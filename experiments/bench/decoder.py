"""Decoding with experts of every kind against decoding as many rows with the base.

The base decodes the prompts as often as there are experts, so that both have as many rows; nothing
is graded. Random weights, or a checkpoint.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import random_checkpoint, text_share, timing
from experiments.bench.low_rank import percent
from experiments.common.readme import markdown_table, number
from thicket_jax.experts.low_rank import FACTORS
from thicket_jax.experts.noise import Noise
from thicket_jax.mapping import devices, usage
from thicket_jax.text import pretrained, prompts
from thicket_jax.text.config import read_config
from thicket_jax.text.decode import decoder, sampling

DTYPE, SIGMA, BLOCK = "float32", 1e-3, 16
_STREAMED = 1  # experts per device: a streamed one draws every leaf again at every token


@dataclasses.dataclass(frozen=True)
class _Decoding:
    """What `text_share` decodes."""

    params: Any
    score_fn: Callable[..., Any]
    train: Any


def run(quick: bool, torch_python: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Measures low-rank, dense and streamed experts and the base, in turn.

    Args:
      quick: a tiny model, few tokens, few perturbed leaves, low-rank experts of one law.
      torch_python: not used.
      model: a checkpoint folder; default random weights, made on the device.

    Returns:
      JSON values: for every contender its seconds with all samples, tokens/s, and its shares of
      the base laid out as it is and of the faster base.
    """
    del torch_python
    rows, width, tokens, block, rounds = (2, 4, 3, 2, 2) if quick else (8, 16, 16, BLOCK, 7)
    shape = "tiny" if quick else "small"
    if model is None:
        with tempfile.TemporaryDirectory() as folder:
            config = random_checkpoint.write_config(pathlib.Path(folder), shape, DTYPE)
        if quick:
            one = {"ropes": config.ropes[:1], "windows": config.windows[:1]}
            config = dataclasses.replace(config, num_layers=1, **one)
        params = random_checkpoint.random_params(config, DTYPE)
    else:
        config, params = read_config(model), pretrained.load(model, DTYPE).params
    # No token ends a text: everyone decodes all of them.
    config = dataclasses.replace(config, eos_ids=())
    draw = np.random.default_rng(0)
    asked = draw.integers(0, config.vocab_size, (rows, width)).tolist()
    batch = prompts.lay_out(asked, rows=rows, chunks=1, width=width, pad_id=0) | sampling(0)
    work = _Decoding(params, decoder(config, tokens, DTYPE), batch)
    mapper = devices.make_mapper()
    contenders = _contenders(work, mapper, block, quick)
    for contender, _, _ in contenders.values():  # once, untimed
        contender()
    samples = timing.alternate({name: entry[0] for name, entry in contenders.items()}, rounds)
    found: dict[str, dict[str, Any]] = {}
    for name, (_, experts, way) in contenders.items():
        seconds = timing.summary(samples[name])
        found[name] = {
            "seconds": seconds,
            "rows_per_call": mapper.count * experts * rows,
            "tokens_per_s": mapper.count * experts * rows * tokens / seconds["median"],
            "share": timing.share(samples[name], samples[f"base, {way}"], experts / block),
        }
    fastest = max(row["tokens_per_s"] for name, row in found.items() if name.startswith("base"))
    for row in found.values():
        row["share_of_fastest"] = row["tokens_per_s"] / fastest
    return {
        "model": shape if model is None else config.family,
        "random": model is None,
        "dtype": DTYPE,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "prompts": rows,
        "prompt_tokens": width,
        "tokens": tokens,
        "block": block,
        "rounds": rounds,
        "devices": mapper.count,
        "rows": found,
        "targets": [],
    }


def _contenders(
    work: _Decoding,
    mapper: devices.Mapper,
    block: int,
    quick: bool,
) -> dict[str, tuple[Callable[[], float], int, str]]:
    """Returns name → (timed call, experts per device, the base's layout to compare with)."""
    side, one = text_share.WAYS
    axes = usage.matrix_axes(work.score_fn, work.params, work.train, np.int32(0))
    found: dict[str, tuple[Callable[[], float], int, str]] = {}

    def enter(name: str, noise: Noise, count: int, way: str, stream: bool = False) -> None:
        experts = tj.population(jax.random.key(0), mapper.count * count, SIGMA, noise=noise)
        timed = text_share.with_experts(work, mapper, experts, count, way, stream)
        found[name] = (timed, count, way)

    laws, where = (FACTORS[1:], "mlp") if quick else (FACTORS, None)
    for factors in laws:
        low = tj.low_rank(1, factors=factors, where=where, axes=axes)
        enter(f"low-rank, {factors}, {side}", low, block, side)
        if not quick:
            enter(f"dense, {factors}, {one}", Noise(factors), block, one)
            enter(f"streamed, {factors}, {one}", Noise(factors), _STREAMED, one, stream=True)
    for way in text_share.WAYS[: 1 if quick else 2]:
        found[f"base, {way}"] = (text_share.with_base(work, mapper, block, way, 1), block, way)
    return found


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [
        [
            name,
            number(row["tokens_per_s"]),
            number(1e3 * row["seconds"]["median"]),
            str(row["rows_per_call"]),
            percent(row["share"]["median"]),
            f"{percent(row['share']['min'])} to {percent(row['share']['max'])}",
            percent(row["share_of_fastest"]),
        ]
        for name, row in result["rows"].items()
    ]
    head = ["decoding", "tokens/s", "ms per call, median", "rows a call"]
    head += ["share of the base so", "spread", "share of the faster base"]
    weights = "random weights" if result["random"] else "a checkpoint"
    return (
        f"{result['model']} ({result['parameters']:,} parameters, {result['dtype']}, {weights}): "
        f"{result['prompts']} prompts of {result['prompt_tokens']} tokens, {result['tokens']} new "
        f"ones, greedy; {result['block']} experts on each of {result['devices']} device(s) "
        f"(streamed: {_STREAMED}), {result['rounds']} alternated rounds. Side by side: one vmap "
        "over the experts, and all rows of the base in one batch. One by one: an expert after the "
        "other, and as many chunks of the base. Streamed experts draw every leaf again at every "
        "token.\n\n" + markdown_table(head, rows)
    )
