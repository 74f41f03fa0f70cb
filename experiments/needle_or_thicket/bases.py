"""The bases and their sequences: the 1-D task's own, and test sequences that go on for longer."""

import zlib

import jax

from experiments.needle_or_thicket.size import Size
from thicket_jax.tasks.signals import task as signals
from thicket_jax.tasks.signals.families import family_batch
from thicket_jax.tasks.task import Task

_STREAM = 0x80000002  # no expert's id, and not the task's own stream


def start(base: str, target: str, seed: int, size: Size, cache: str) -> Task:
    """Returns the task of a base and a target; bases are kept in `cache` for the next target.

    Args:
      base: `random`, `mixture`, `matched`, or what the task itself calls a pretraining.
      target: a name of the task's.
      seed: of base and data.
      size: of which `train_items` is used.
      cache: folder.
    """
    pretrain = {"random": "xavier", "mixture": "mixed", "matched": target}.get(base, base)
    options = signals.Options(
        pretrain=pretrain,
        target=target,
        seed=seed,
        cache=cache,
        train_items=size.train_items,
        test_items=1,
    )
    return signals.build(options.resolved())


def long_test(target: str, seed: int, size: Size) -> dict[str, jax.Array]:
    """Returns unseen sequences up to the longest horizon: context [B, 10] and future [B, T]."""
    root = jax.random.fold_in(jax.random.key(seed), _STREAM)
    key = jax.random.fold_in(root, zlib.crc32(b"test"))
    length = signals.CONTEXT + max(size.horizons)
    points = family_batch(target, key, size.test_items, length)
    return {"context": points[:, : signals.CONTEXT], "future": points[:, signals.CONTEXT :]}
