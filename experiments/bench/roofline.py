"""How long decoding must take at least on a chip, by its published peaks: the roofline.

Each phase takes the longer of its operations at the chip's peak and its bytes at the chip's
bandwidth. Drawing noise, norms and the choice of tokens are left out, and everything is taken to
overlap, so the clock can only be slower.
"""

import dataclasses
import functools

import numpy as np

from experiments.bench.chips import Chips
from thicket_jax.experts.leaves import leaf_rows
from thicket_jax.text.cache import cache_bytes
from thicket_jax.text.config import Config
from thicket_jax.text.model import abstract

_BYTES = 2  # of a number in bfloat16


@dataclasses.dataclass(frozen=True)
class Work:
    """What a chip does in one call.

    Attributes:
      experts: side by side, b.
      rows: prompts of each expert, side by side, R.
      prompt: tokens of a prompt, P.
      new: tokens that are generated, T.
      turns: prompts that a row takes, one after another.
      rank: of low-rank experts, which share their base's products; None: each has its own weights.
    """

    experts: int
    rows: int
    prompt: int
    new: int
    rank: int | None
    turns: int = 1


def parameters(config: Config) -> dict[str, int]:
    """Returns how many weights a model has: `all`, and `layers` and `head`, those in products."""
    rows = _shapes(config)
    sizes = {name: _size(shape) for name, shape in rows}
    matrices = [_size(shape) for name, shape in rows if ".layers." in name and len(shape) > 1]
    return {
        "all": sum(sizes.values()),
        "layers": sum(matrices),
        "head": config.vocab_size * config.hidden_size,
    }


@functools.lru_cache(maxsize=8)
def _shapes(config: Config) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, leaf.shape) for name, leaf in leaf_rows(abstract(config, "bfloat16")))


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _factors(config: Config) -> int:
    """Rows and columns of all matrices: an expert of rank 1 has so many numbers."""
    return sum(
        sum(leaf.shape)
        for _, leaf in leaf_rows(abstract(config, "bfloat16"))
        if len(leaf.shape) > 1
    )


def prefill(config: Config, work: Work) -> tuple[float, float]:
    """Returns (operations, bytes) of running all prompts once, the head on their last tokens."""
    tokens, count = work.rows * work.prompt, parameters(config)
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * work.prompt
    one = tokens * (2 * count["layers"] + attention) + 2 * work.rows * count["head"]
    rank, weights = work.rank or 0, _BYTES * count["all"]
    one += tokens * 2 * rank * _factors(config)
    moved = weights + work.experts * _own_bytes(config, work)
    if work.rank is None:
        moved += work.experts * weights  # written once, then read
    return work.experts * one, moved + work.experts * _cache(config, work)


def step(config: Config, work: Work) -> tuple[float, float]:
    """Returns (operations, bytes) of one new token for all rows; the whole cache is read."""
    count, slots = parameters(config), work.prompt + work.new
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * slots
    one = 2 * (count["layers"] + count["head"]) + attention
    one += 2 * (work.rank or 0) * _factors(config)
    shared = _BYTES * (count["layers"] + count["head"]) if work.rank is not None else 0
    own = work.experts * (_own_bytes(config, work) + _cache(config, work))
    return work.experts * work.rows * one, shared + own


def _own_bytes(config: Config, work: Work) -> float:
    """What an expert reads that no other reads: its weights, or its factors."""
    if work.rank is None:
        count = parameters(config)
        return _BYTES * (count["layers"] + count["head"])
    return _BYTES * work.rank * _factors(config)


def _cache(config: Config, work: Work) -> float:
    return cache_bytes(config, work.rows, work.prompt + work.new, "bfloat16")


def held_bytes(config: Config, work: Work) -> dict[str, float]:
    """Returns what a chip must hold: `base`, and the experts' own `weights` and `caches`."""
    dense = _BYTES * parameters(config)["all"]
    own = dense if work.rank is None else _BYTES * work.rank * _factors(config)
    return {
        "base": dense,
        "weights": work.experts * own,
        "caches": work.experts * _cache(config, work),
    }


def bound(config: Config, work: Work, chips: Chips) -> dict[str, float | str]:
    """Returns seconds of prefill and of a step, and experts and tokens a second on all chips."""
    seconds, by = {}, {}
    for name, phase in (("prefill", prefill), ("step", step)):
        operations, moved = phase(config, work)
        times = {"operations": operations / chips.flops, "bytes": moved / chips.bandwidth}
        by[name] = max(times, key=lambda kind: times[kind])
        seconds[name] = times[by[name]]
    whole = work.turns * (seconds["prefill"] + (work.new - 1) * seconds["step"])
    experts = chips.count * work.experts / whole
    return {
        "prefill_seconds": seconds["prefill"],
        "prefill_bound": by["prefill"],
        "step_seconds": seconds["step"],
        "step_bound": by["step"],
        "seconds": whole,
        "experts_per_s": experts,
        "tokens_per_s": experts * work.turns * work.rows * work.new,
    }
