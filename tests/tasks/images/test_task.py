"""Task digits: its data, base and options, other sets, the figure."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tiny_images import TinyColour, one_line, prepare

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks import registry
from thicket_jax.tasks import task as task_module
from thicket_jax.tasks.images import conditions, figure
from thicket_jax.tasks.images import task as digits

SMALL = {
    "condition": "inverted",
    "pretrain_steps": 24,
    "train_items": 40,
    "test_items": 60,
    "validation_items": 30,
}


@pytest.fixture(scope="module")
def task(cache):
    return digits.build(digits.Options(cache=str(cache), **SMALL))


def test_score_predict_and_targets_agree(task):
    assert (
        tuple(task.problem.combines) == ("majority_vote", "mean_probs")
        and task.problem.metric.name == "accuracy"
    )
    assert task.problem.train["image"].shape == (40, 8, 8, 1) and task.problem.test[
        "image"
    ].shape == (60, 8, 8, 1)
    np.testing.assert_array_equal(task.problem.targets, task.problem.test["label"])
    for batch in (task.problem.train, task.problem.test):
        outcome = jax.jit(task.problem.score_fn)(task.problem.params, batch)
        logits = np.asarray(jax.jit(task.problem.predict_fn)(task.problem.params, batch))
        assert outcome.dtype == jnp.float32 and logits.dtype == np.float32
        np.testing.assert_array_equal(outcome, logits.argmax(-1) == np.asarray(batch["label"]))
    shown = np.asarray(task.problem.test["image"][:16]) * 255
    np.testing.assert_allclose(task.problem.exhibits["test_images"], shown, atol=0.51)
    json.dumps(task.provenance)
    assert set(task.provenance["base_validation_accuracy"]) == set(conditions.CONDITIONS)


def test_images_are_the_sets_own_under_the_condition(task, cache):
    """Each test image is 1 − a distinct digit of scikit-learn's with that label."""
    truth = load_digits()
    where = {}
    for split in ("train", "test"):
        pixels = np.rint((1 - np.asarray(getattr(task.problem, split)["image"])) * 16)[..., 0]
        matches = (pixels[:, None] == truth.images[None]).all((2, 3))
        assert (matches.sum(1) == 1).all()
        where[split] = matches.argmax(1)
        labels = getattr(task.problem, split)["label"]
        np.testing.assert_array_equal(labels, truth.target[where[split]])
    assert not set(where["train"]) & set(where["test"])


def test_a_second_build_finds_the_base_and_keeps_the_test_items(task, cache):
    assert task.provenance["items"] == {
        "test": 60,
        "validation": 30,
        "train": 40,
        "pretrain": 1797 - 130,
    }
    again = digits.build(digits.Options(cache=str(cache), **SMALL))
    assert again.provenance["base"]["cache"] == "hit"
    # As many items for the base, though others: no program is compiled again.
    fewer = {**SMALL, "train_items": 30, "pretrain_items": 1797 - 130}
    other = digits.build(digits.Options(cache=str(cache), **fewer))
    assert other.provenance["base"]["cache"] == "miss"
    np.testing.assert_array_equal(other.problem.test["image"], task.problem.test["image"])
    for leaf, other in zip(
        *(jax.tree.leaves(t.problem.params) for t in (task, again)), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    rotated = digits.build(
        digits.Options(cache=str(cache), **{**SMALL, "condition": "rotated"}, precision="bfloat16")
    )
    assert rotated.provenance["base"]["cache"] == "hit"  # one base serves every condition
    assert (
        np.asarray(rotated.problem.test["image"]) != np.asarray(task.problem.test["image"])
    ).any()
    shown = jax.eval_shape(rotated.problem.predict_fn, rotated.problem.params, rotated.problem.test)
    assert shown.dtype == jnp.float32
    another = digits.build(digits.Options(cache=str(cache), **SMALL, seed=1))
    assert another.provenance["base"]["cache"] == "miss"
    assert (another.problem.targets != task.problem.targets).any()


def test_experts_side_by_side_score_as_one_by_one(task):
    population = tj.population(jax.random.key(1), 12, (0.02, 0.1), noise=tj.rademacher())
    together = tj.score(
        task.problem.score_fn, task.problem.params, population, task.problem.train, block_size=4
    )
    for index in (0, 5, 11):
        alone = jax.jit(task.problem.score_fn)(
            tj.perturb(task.problem.params, population[index]), task.problem.train
        )
        # An item may fall to the other side of a tie between two logits.
        assert abs(float(together.values[index]) - float(alone.mean())) <= 1 / 40
    assert len(np.unique(together.values)) > 1


def test_another_set_becomes_a_task(tmp_path):
    prepare(TinyColour, tmp_path / "tfds")
    small = {**SMALL, "condition": "noisy", "pretrain_steps": 2, "test_items": 20}
    options = digits.Options(cache=str(tmp_path), dataset="tiny_colour", **small)
    task = digits.build(options)
    assert task.provenance["items"]["pretrain"] == 120 - 90
    assert task.provenance["dataset"]["version"] == "1.2.0"
    logits = jax.jit(task.problem.predict_fn)(task.problem.params, task.problem.test)
    assert logits.shape == (20, 7) and np.isfinite(logits).all()
    assert float(task.problem.train["image"].max()) <= 1


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"condition": "upside_down"}, ArgumentError, "condition='upside_down'"),
        ({"precision": "float16"}, ArgumentError, "precision='float16'"),
        ({"prng": "rbg"}, ArgumentError, "prng='rbg'"),
        ({"train_items": 0}, ArgumentError, "train_items=0"),
        ({"pretrain_steps": 0}, ArgumentError, "pretrain_steps=0"),
        ({"pretrain_items": -1}, ArgumentError, "pretrain_items=-1"),
        ({"test_items": 1727}, DataError, "has 1797 items"),
        ({"pretrain_items": 1668}, DataError, "1668 pretrain = 1798"),
        ({"dataset": "nosuchset"}, DataError, "dataset='nosuchset'"),
    ],
)
def test_bad_options_are_one_clear_line(cache, changes, kind, said):
    options = digits.Options(cache=str(cache), **{**SMALL, **changes})
    with pytest.raises(kind) as error:
        digits.build(options)
    assert said in one_line(error)


def test_the_registry_has_the_task():
    module = registry.module("digits")
    assert module is digits and issubclass(module.Options, task_module.Options)
    assert module.draw is figure.draw


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_the_figure_shows_the_first_items(tmp_path, shape):
    draw = np.random.default_rng(0)
    record = types.SimpleNamespace(
        answers=draw.normal(size=(5, 30, 10)).astype(np.float32),
        base_answers=draw.normal(size=(30, 10)).astype(np.float32),
        random_answers=draw.normal(size=(2, 30, 10)).astype(np.float32),
        targets=draw.integers(0, 10, 30),
        exhibits={"test_images": draw.integers(0, 256, (16, *shape)).astype(np.uint8)},
    )
    ((name, caption),) = digits.draw(record, tmp_path / "figures")
    written = (tmp_path / "figures" / name).read_bytes()
    assert written.startswith(b"\x89PNG") and 10_000 < len(written) < 200_000
    assert "5 experts" in caption and "16 test items" in caption
