"""The 1-D experiment: a small MLP continues a signal that it sees ten points of.

Gan and Isola, Neural Thickets (arXiv 2603.12228), section on 1-D signals. The base is an MLP,
10 → 128 → 128 → 128 → 128 → 1 with ReLU, trained on the next value alone; an expert is scored by
minus the mean squared error of its 60-step roll-out, its own outputs fed back; the ensemble is the
mean of the roll-outs.

Every sequence has 70 points, x = −2.5, −2.4, ...: 10 of context and 60 to roll out. Pretraining
sees the first window only (10 points of context, then the value at x = −1.5), as in the paper:
windows from anywhere along the sequence were tried and give the same base errors within the
spread of seeds.
"""

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from thicket_jax.ensembles.combine import combine_rules
from thicket_jax.errors import ArgumentError, check_choice
from thicket_jax.experts.leaves import check_useful_rank
from thicket_jax.scoring.metrics import metric
from thicket_jax.search.problem import Problem
from thicket_jax.tasks import task
from thicket_jax.tasks.base_model import cached
from thicket_jax.tasks.signals.families import ONE, SAMPLED, SIGNALS, family_batch
from thicket_jax.tasks.signals.figure import draw as draw
from thicket_jax.tasks.signals.model import (
    BATCH,
    CONTEXT,
    INITIALISATIONS,
    ITERATIONS,
    LEARNING_RATE,
    WIDTHS,
    Params,
    initialise,
    pretrain,
    roll_out,
    roll_out_score,
)

FUTURE = 60
MOST_ITEMS = 2**20
PRETRAINS = (*SAMPLED, *INITIALISATIONS)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

_RECIPE = 1  # raise when a change here changes a base model, so that cached ones are not used
_PRNG = "threefry2x32"  # of data and base; it compiles in a tenth of threefry4x32's time
_STREAMS = 0x80000001  # experts fold ids below 2**31 and the sigma draw 2**32 - 1 into the root


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(task.Options):
    """The options of `thicket run signals`."""

    pretrain: str = "mixed"
    """What the base is trained on: line, sinusoid, squarewave, sawtooth, harmonic, sigmoid or
    mixed; or an initialisation without training: xavier, kaiming or orthogonal."""
    target: str = "sinusoid"
    """The task: a family as above, or one_<family>, a single fixed signal."""
    sigma: tuple[float, ...] = ()
    """Standard deviations; default: 0.002 around a trained base, 0.05 around an untrained one."""
    num: int = 1000
    """Number of experts to sample (N)."""
    k: tuple[int, ...] = (10,)
    """Ensemble sizes to report; the largest number of experts is kept."""
    train_items: int = 1024
    """Sequences that score the experts."""
    test_items: int = 256
    """Held-out sequences on which base, best expert and ensembles are compared."""

    def resolved(self) -> "Options":
        """Returns the options with sigma filled in."""
        if self.sigma:
            return self
        default = 0.05 if self.pretrain in INITIALISATIONS else 0.002
        return dataclasses.replace(self, sigma=(default,))

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("pretrain", self.pretrain, PRETRAINS)
        check_choice("target", self.target, SIGNALS)
        for name in ("train_items", "test_items"):
            if getattr(self, name) > MOST_ITEMS:
                raise ArgumentError(f"{name}={getattr(self, name)} must be {MOST_ITEMS} at most")


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the signals and the base model.

    Raises:
      ArgumentError: an option that cannot work.
      ParameterError: the noise law finds nothing to perturb, or not what it names.
      DataError: the cached base model is damaged, or the cache folder cannot be written.
    """
    options = options.resolved()
    options.check()
    shapes = jax.eval_shape(lambda: initialise(jax.random.key(0), "xavier"))
    check_useful_rank(shapes, options.law())
    dtype = DTYPES[options.precision]
    train = _sequences(options, "train", options.train_items)
    test = _sequences(options, "test", options.test_items)
    params, provenance = _base(options, tell)
    shape = "-".join(str(width) for width in WIDTHS)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    trained = options.pretrain not in INITIALISATIONS
    origin = "trained on" if trained else "untrained, initialised by"
    notes: tuple[str, ...] = ()
    if options.target.startswith(ONE):
        notes = (
            f"Every sequence of {options.target} is the same fixed signal, so training and test "
            "signal coincide: the test error says how well it was fitted, not how it generalises.",
        )
    score_fn, predict_fn = _functions(dtype)
    return task.Task(
        name="signals",
        model=f"MLP {shape}, ReLU, {count:,} parameters, {origin} {options.pretrain}",
        problem=Problem(
            score_fn=score_fn,
            params=params,
            train=train,
            predict_fn=predict_fn,
            test=test,
            targets=np.asarray(test["future"]),
            metric=metric("mse"),
            combines=combine_rules("mean", "median"),
            exhibits={"test_context": np.asarray(test["context"])},
        ),
        notes=notes,
        provenance=provenance,
    )


@functools.cache
def _functions(dtype: Any) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Score and prediction: one object per dtype, so that a second run compiles nothing."""

    def score_fn(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        return roll_out_score(params, batch, dtype)

    def predict_fn(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        return roll_out(params, batch, dtype)

    return score_fn, predict_fn


def _stream(options: Options, name: str) -> jax.Array:
    """The key of one use of randomness; no two uses, and no expert, share a key.

    `--prng` is of the experts alone: runs that compare two share their data and their base.
    """
    root = jax.random.fold_in(jax.random.key(options.seed, impl=_PRNG), _STREAMS)
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def _sequences(options: Options, split: str, num: int) -> dict[str, jax.Array]:
    """{"context": float32 [num, 10], "future": float32 [num, 60]} of the target."""
    points = family_batch(options.target, _stream(options, split), num, CONTEXT + FUTURE)
    return {"context": points[:, :CONTEXT], "future": points[:, CONTEXT:]}


def _base(options: Options, tell: task.Tell) -> tuple[Params, dict[str, Any]]:
    """θ, and where it comes from: trained now, found in the cache, or only initialised."""
    key = _stream(options, "base")
    if options.pretrain in INITIALISATIONS:
        origin = {"initialisation": options.pretrain, "iterations": 0, "cache": "not used"}
        return initialise(key, options.pretrain), origin
    recipe = {
        "recipe": _RECIPE,
        "optax": optax.__version__,
        "pretrain": options.pretrain,
        "initialisation": "xavier",
        "iterations": ITERATIONS,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "widths": list(WIDTHS),
    }
    fingerprint = {**recipe, "task": "signals", "seed": options.seed, "prng": _PRNG}
    made = []

    def make() -> dict[str, Any]:
        made.append(True)
        tell(f"training the base on {options.pretrain}, {ITERATIONS} steps")
        params, losses = pretrain(key, options.pretrain, ITERATIONS, BATCH, LEARNING_RATE)
        return {"params": params, "losses": losses}

    start = time.perf_counter()
    kept = cached(options.cache_folder(), f"signals-{options.pretrain}", fingerprint, make)
    losses = np.asarray(kept["losses"], np.float64)
    return kept["params"], {
        **recipe,
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-50:].mean()),
        "cache": "miss" if made else "hit",
        "seconds": time.perf_counter() - start,
    }
