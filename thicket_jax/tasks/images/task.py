"""Image classification under a condition: the handwritten digits, or any set of its kind.

A small convolutional net is trained for a short while on a mixture of the images clean, rotated,
noisy, inverted and shifted; the task is its accuracy on one of these conditions. So the base
serves five conditions at once, and an expert that serves one of them better may be close by.

Items are dealt out to test, validation, train and pretraining by one permutation of their
indices, so that no item is in two of them. Under its condition an item looks the same to every
expert and in every batch.
"""

import dataclasses
import functools
import hashlib
import re
import time
import zlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from thicket_jax.ensembles.combine import combine_rules
from thicket_jax.errors import ArgumentError, check_choice, check_count
from thicket_jax.experts.leaves import check_useful_rank
from thicket_jax.scoring.metrics import metric
from thicket_jax.search.problem import Problem
from thicket_jax.tasks import task
from thicket_jax.tasks.base_model import cached
from thicket_jax.tasks.images.conditions import (
    CONDITIONS,
    MAX_ANGLE,
    NOISE,
    SHIFT,
    apply_condition,
)
from thicket_jax.tasks.images.datasets import ImageSet, open_images, split_items
from thicket_jax.tasks.images.figure import EXHIBITED
from thicket_jax.tasks.images.figure import draw as draw
from thicket_jax.tasks.images.model import (
    BATCH,
    FIRST_WIDTH,
    LAST_WIDTH,
    LEARNING_RATE,
    Net,
    Params,
    pretrain,
)

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MOST_PRETRAIN_ITEMS = 8192
MOST_STEPS = 1_000_000

_RECIPE = 1  # raise when a change here changes a base model, so that cached ones are not used
_PRNG = "threefry2x32"
_STREAMS = 0x80000001  # experts fold ids below 2**31 and the sigma draw 2**32 - 1 into the root

Batch = dict[str, jax.Array]  # {"image": float32 [B, H, W, channels], "label": int32 [B]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(task.Options):
    """The options of `thicket run digits`."""

    dataset: str = "digits"
    """digits (scikit-learn's, no download), or an image classification set of
    tensorflow-datasets: mnist, fashion_mnist, cifar10, ..., fetched if it is not prepared."""
    condition: str = "rotated"
    """The task: clean, rotated, noisy, inverted or shifted."""
    pretrain_steps: int = 100
    """Updates of the base model, on batches of 128; more leave experts less to gain."""
    pretrain_items: int | None = None
    """Items that the base is trained on; default: all that are left, at most 8192."""
    validation_items: int = 200
    """Items on which the base's accuracy under every condition is measured."""
    sigma: tuple[float, ...] = (0.01, 0.02, 0.03)
    """Standard deviations of the perturbation; several are dealt out in turn."""
    num: int = 500
    """Number of experts to sample (N)."""
    k: tuple[int, ...] = (1, 5, 10, 50)
    """Ensemble sizes to report; the largest number of experts is kept."""
    train_items: int = 400
    """Items that score the experts."""
    test_items: int = 600
    """Held-out items on which base, best expert and ensembles are compared."""

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("condition", self.condition, CONDITIONS)
        if check_count("pretrain_steps", self.pretrain_steps) > MOST_STEPS:
            raise ArgumentError(
                f"pretrain_steps={self.pretrain_steps} must be {MOST_STEPS} at most"
            )
        check_count("validation_items", self.validation_items)
        if self.pretrain_items is not None:
            check_count("pretrain_items", self.pretrain_items)


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the data and the base model.

    Raises:
      ArgumentError: an option that cannot work.
      ParameterError: the noise law finds nothing to perturb, or not what it names.
      DataError: the data set is missing, damaged, of another kind, or too small; or the cached
        base model is damaged.
    """
    options.check()
    counts = _counts(options)
    tell(f"looking for the data set {options.dataset}, or preparing it")
    images = open_images(options.dataset, options.cache_folder() / "tfds")
    splits = split_items(_stream(options, "split"), len(images), _filled(counts, len(images)))
    net = Net(images.shape, images.classes)
    shapes = jax.eval_shape(net.initialise, jax.random.key(0))
    check_useful_rank(shapes, options.law())
    dtype = DTYPES[options.precision]

    params, provenance = _base(options, images, splits["pretrain"], net, tell)
    scored = np.concatenate([splits["train"], splits["test"]])
    clean, labels = _clean(images, scored)
    key = _condition_key(options, options.condition)
    seen = apply_condition(options.condition, key, jnp.asarray(scored), clean)
    cut = len(splits["train"])
    train = {"image": seen[:cut], "label": labels[:cut]}
    test = {"image": seen[cut:], "label": labels[cut:]}

    def score_fn(params: Params, batch: Batch) -> jax.Array:
        """Returns 1 for every item whose class is found and 0 for the others, float32 [B]."""
        found = net.logits(params, batch["image"], dtype).argmax(-1)
        return (found == batch["label"]).astype(jnp.float32)

    def predict_fn(params: Params, batch: Batch) -> jax.Array:
        """Returns logits, float32 [B, C]."""
        return net.logits(params, batch["image"], dtype)

    held = splits["validation"]
    keys = {name: _condition_key(options, name) for name in CONDITIONS}
    accuracies = _accuracies(net, dtype, params, keys, jnp.asarray(held), *_clean(images, held))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    size = "×".join(map(str, images.shape))
    shown = test["image"][:EXHIBITED]
    return task.Task(
        name="digits",
        model=(
            f"convolutional net, {net.depth} layers of 3×3, {count:,} parameters, {size} images of "
            f"{options.dataset}, trained {options.pretrain_steps} steps on {len(CONDITIONS)} "
            "conditions"
        ),
        problem=Problem(
            score_fn=score_fn,
            params=params,
            train=train,
            predict_fn=predict_fn,
            test=test,
            targets=np.asarray(test["label"]),
            metric=metric("accuracy"),
            combines=combine_rules("majority_vote", "mean_probs"),
            exhibits={"test_images": np.asarray(jnp.round(255 * shown), np.uint8)},
        ),
        provenance={
            "dataset": {
                "name": images.name,
                "version": images.version,
                "split": images.split,
                "items": len(images),
                "classes": images.classes,
                "shape": list(images.shape),
            },
            "items": {name: len(indices) for name, indices in splits.items()},
            "condition": options.condition,
            "base": provenance,
            "base_validation_accuracy": {k: float(v) for k, v in accuracies.items()},
        },
    )


def _counts(options: Options) -> dict[str, int | None]:
    """Items by split; the order keeps test items the same when the others' numbers change."""
    return {
        "test": options.test_items,
        "validation": options.validation_items,
        "train": options.train_items,
        "pretrain": options.pretrain_items,
    }


def _filled(counts: dict[str, int | None], total: int) -> dict[str, int]:
    """Gives pretraining what is left, at least one item, where its number is not said."""
    left = total - sum(count for count in counts.values() if count is not None)
    default = min(max(left, 1), MOST_PRETRAIN_ITEMS)
    return {name: default if count is None else count for name, count in counts.items()}


def _stream(options: Options, name: str) -> jax.Array:
    """The key of one use of randomness; no two uses, and no expert, share a key.

    `--prng` is of the experts alone: runs that compare two share their data and their base.
    """
    root = jax.random.fold_in(jax.random.key(options.seed, impl=_PRNG), _STREAMS)
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def _clean(images: ImageSet, items: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Images float32 [n, H, W, channels] from 0 to 1, and labels int32 [n]."""
    pixels, labels = images.read(items)
    return jnp.asarray(pixels.astype(np.float32) / np.float32(images.peak)), jnp.asarray(labels)


def _condition_key(options: Options, condition: str) -> jax.Array:
    """Each item's own key is folded from this one: how it looks depends on nothing else."""
    return _stream(options, f"condition {condition}")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _accuracies(
    net: Net,
    dtype: Any,
    params: Params,
    keys: dict[str, jax.Array],
    items: jax.Array,
    clean: jax.Array,
    labels: jax.Array,
) -> dict[str, jax.Array]:
    """The accuracy under every condition, float32 []."""
    found = {
        name: net.logits(params, apply_condition(name, key, items, clean), dtype).argmax(-1)
        for name, key in keys.items()
    }
    return {name: (answers == labels).mean() for name, answers in found.items()}


def _base(
    options: Options, images: ImageSet, items: np.ndarray, net: Net, tell: task.Tell
) -> tuple[Params, dict[str, Any]]:
    """θ, and where it comes from: trained now or found in the cache."""
    steps = options.pretrain_steps
    clean, labels = _clean(images, items)
    digest = hashlib.sha256(np.asarray(clean).tobytes() + np.asarray(labels).tobytes())
    recipe = {
        "recipe": _RECIPE,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "steps": steps,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "widths": [FIRST_WIDTH, LAST_WIDTH],
        "conditions": list(CONDITIONS),
        "condition_sizes": [MAX_ANGLE, NOISE, SHIFT],
        "images": digest.hexdigest()[:16],
    }
    fingerprint = {
        **recipe,
        "task": "digits",
        "dataset": f"{images.name} {images.version}",
        "seed": options.seed,
        "prng": _PRNG,
        "classes": images.classes,
    }
    made = []

    def make() -> dict[str, Any]:
        made.append(True)
        tell(f"training the base, {steps} steps")
        params, losses = pretrain(net, _stream(options, "base"), clean, labels, steps)
        return {"params": params, "losses": losses}

    start = time.perf_counter()
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", images.name)
    kept = cached(options.cache_folder(), f"digits-{name}", fingerprint, make)
    losses = np.asarray(kept["losses"], np.float64)
    return kept["params"], {
        **recipe,
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-20:].mean()),
        "cache": "miss" if made else "hit",
        "seconds": time.perf_counter() - start,
    }
