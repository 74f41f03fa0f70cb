"""Metrics: shapes that broadcast are refused, and so are targets that cannot be classes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ThicketError
from thicket_jax.scoring.metrics import METRICS, own_metric

SHAPES = [(), (1,), (4,), (1, 4), (4, 1), (4, 4), (4, 1, 1), (4, 4, 1), (4, 4, 4)]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kinds", list(itertools.product((np.int32, np.float32), repeat=2)))
def test_every_metric_refuses_what_only_broadcasts(name, kinds):
    """One outcome an item, or an error that names both shapes; nothing else, whatever numpy can."""
    for shape, other in itertools.product(SHAPES, repeat=2):
        answers, targets = np.zeros(shape, kinds[0]), np.zeros(other, kinds[1])
        scores = name == "accuracy" and shape[:-1] == other and len(shape) > 1
        table = name == "accuracy" and other[:-1] == shape != () and kinds == (np.int32, np.float32)
        fits = (shape == other or scores or table) and other != ()
        if fits:
            items = METRICS[name].per_item(answers, targets)
            assert items.shape == shape[:1] and items.dtype == np.float64
            continue
        with pytest.raises(ArgumentError, match=f"{name}: the answers") as caught:
            METRICS[name].per_item(answers, targets)
        assert all(str(list(text)) in str(caught.value) for text in (shape, other))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "targets", "found"),
    [
        (np.zeros(3, int), np.array([0, 0.5, 1]), r"the targets are float64\[3\] with 0\.5"),
        (np.zeros(3, int), np.array([0, np.nan, 1]), "with nan"),
        (np.zeros(3, int), np.array([0, np.inf, 1]), "with inf"),
        (np.zeros(3, int), np.array([0, -1, 1]), "with -1"),
        (np.zeros((3, 2)), np.array([0, 2, 1]), "with 2 among them, which is no class of 2"),
        (np.array([0.7, 0.1, 1]), np.array([1, 0, 1]), r"the answers are float64\[3\] with 0\.7"),
        (np.array([0, 2, 0]), np.ones((3, 2), np.float32), "no class of 2"),
    ],
)
def test_accuracy_refuses_what_cannot_be_classes(answers, targets, found):
    with pytest.raises(ArgumentError, match=found):
        METRICS["accuracy"].per_item(answers, targets)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_takes_real_numbers(name):
    good = np.ones(2, np.int32)
    for wrong in (np.array(["a", "b"]), ["a", "b"], [None, 1], np.ones(2) + 1j, [[1], [2, 3]]):
        for pair in ((wrong, good), (good, wrong), (wrong, wrong)):
            with pytest.raises(ArgumentError, match=f"{name}: .* are of type .*; give real num"):
                METRICS[name].per_item(*pair)
    for dtype in (np.int8, np.float16, np.float64, jnp.bfloat16):
        METRICS[name].per_item(good.astype(dtype), good)


def test_nan_is_never_right():
    scores = np.array([[np.nan, 0], [0, np.nan], [1, 0]], np.float32)
    assert METRICS["accuracy"].per_item(scores, np.array([0, 1, 0])).tolist() == [0, 0, 1]
    labels = np.array([0, np.nan, 1])
    assert METRICS["accuracy"].per_item(labels, np.array([0, 1, 1])).tolist() == [1, 0, 1]
    assert np.isnan(METRICS["mse"].per_item(scores, np.zeros((3, 2)))).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("metric", "combine", "targets", "predicted", "found"),
    [
        ("mse", tj.mean, [20, 1], [20], r"mse: .* float32\[20\], the targets float64\[20, 1\]"),
        ("mse", tj.majority_vote, [20], [20], "majority_vote got float32"),
        ("mse", tj.majority_vote, [20, 3], [20, 3], r"mse: .* int32\[20\], the targets"),
        ("accuracy", tj.mean, [20], [20, 1, 3], "accuracy: the answers"),
        ("mse", tj.mean, [20], [], r"predict_fn returned float32\[\]"),
        ("mse", tj.mean, [20], None, "predict_fn returned a tuple"),
    ],
)
def test_what_a_metric_refuses_is_refused_before_the_work(
    metric, combine, targets, predicted, found
):
    def score_fn(params, batch):
        raise AssertionError("scored")

    def predict_fn(params, batch):
        answers = jnp.ones(predicted or [])
        return (answers, answers) if predicted is None else answers

    with pytest.raises(ThicketError, match=found):
        tj.randopt(
            score_fn, jnp.ones(()), np.ones(4), key=jax.random.key(0), num=4, k=2, sigma=0.1,
            predict_fn=predict_fn, test=np.ones(20), targets=np.zeros(targets), metric=metric,
            combine=combine,
        )  # fmt: skip


def test_a_metric_of_one_s_own_returns_one_number_an_item():
    targets = np.zeros((5, 1))
    right = own_metric("mine", lambda answers, targets: answers == targets[:, 0])
    assert right.per_item(np.zeros(5), targets).tolist() == [1] * 5
    for wrong in (lambda a, t: a == t, lambda a, t: np.mean(a), lambda a, t: None):
        with pytest.raises(ArgumentError, match=r"metric mine returned .* per item, \[5\]"):
            own_metric("mine", wrong).per_item(np.zeros(5), targets)
