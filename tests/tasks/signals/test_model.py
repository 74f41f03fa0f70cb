"""The model of signals: roll-outs and scores, pretraining, initialisation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks.signals import families
from thicket_jax.tasks.signals import model as signal_model

KEY = jax.random.key(11)
ROLL_OUT = jax.jit(signal_model.roll_out, static_argnums=2)
INITIALISE = jax.jit(signal_model.initialise, static_argnums=1)
SCORE = jax.jit(signal_model.roll_out_score, static_argnums=2)


def slow_roll_out(params, context, steps):
    """One sequence, one value at a time, in double precision."""
    layers = [params[f"layer_{i}"] for i in range(5)]
    window = [float(v) for v in context]
    for _ in range(steps):
        hidden = np.array(window[-10:])
        for index, layer in enumerate(layers):
            kernel = np.asarray(layer["kernel"], np.float64)
            hidden = hidden @ kernel + np.asarray(layer["bias"], np.float64)
            if index < 4:
                hidden = np.where(hidden > 0, hidden, 0)
        window.append(float(hidden[0]))
    return np.array(window[10:])


@pytest.fixture(scope="module")
def trained():
    """A base that has learnt a little, so that roll-outs neither vanish nor explode."""
    return signal_model.pretrain(jax.random.key(2), "mixed", 100, 64)


@pytest.fixture(scope="module")
def batch():
    points = families.family_batch("sinusoid", jax.random.key(4), 6, 70)
    return {"context": points[:, :10], "future": points[:, 10:]}


def biased(params):
    """The same parameters with biases that are not nearly zero."""
    return {
        name: {"kernel": layer["kernel"], "bias": layer["bias"] + 0.01}
        for name, layer in params.items()
    }


def test_roll_out_and_score_equal_the_slow_reference(trained, batch):
    params = biased(trained[0])
    expected = np.stack([slow_roll_out(params, c, 60) for c in np.asarray(batch["context"])])
    answers = ROLL_OUT(params, batch, jnp.float32)
    assert answers.dtype == jnp.float32
    np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-3)
    errors = ((expected - np.asarray(batch["future"])) ** 2).mean(1)
    scores = SCORE(params, batch, jnp.float32)
    assert (scores.shape, scores.dtype) == ((6,), jnp.float32)
    np.testing.assert_allclose(scores, -errors, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_score_is_the_error_of_the_prediction(trained, batch, dtype):
    answers = np.asarray(ROLL_OUT(trained[0], batch, dtype))
    errors = ((answers - np.asarray(batch["future"])) ** 2).mean(1)
    scores = SCORE(trained[0], batch, dtype)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, -errors, rtol=1e-4 if dtype == jnp.float32 else 0.05)


def test_bfloat16_computes_the_products_in_bfloat16(trained, batch):
    def dots(dtype):
        text = str(
            jax.make_jaxpr(lambda p: signal_model.roll_out_score(p, batch, dtype))(trained[0])
        )
        return [line for line in text.splitlines() if "dot_general" in line]

    assert len(dots(jnp.bfloat16)) == len(dots(jnp.float32)) == 5
    assert all("bf16[" in line for line in dots(jnp.bfloat16))
    assert all("f32[" in line for line in dots(jnp.float32))
    # Of the first step alone: what follows is fed back.
    exact = np.asarray(ROLL_OUT(trained[0], batch, jnp.float32))[:, :1]
    rounded = np.asarray(ROLL_OUT(trained[0], batch, jnp.bfloat16))[:, :1]
    assert 0 < np.abs(exact - rounded).max() < 0.03


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_experts_side_by_side_score_as_alone(trained, batch, dtype):
    sizes = np.array([1, 0.9, 1.1], np.float32)
    many = jax.tree.map(lambda leaf: np.multiply.outer(sizes, leaf), trained[0])
    together = jax.jit(jax.vmap(lambda p: signal_model.roll_out_score(p, batch, dtype)))(many)
    assert together.shape == (3, 6)
    for index in range(3):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], many)
        alone = SCORE(one, batch, dtype)
        np.testing.assert_allclose(
            together[index], alone, rtol=1e-3 if dtype == jnp.float32 else 0.2
        )


def test_pretraining_lowers_the_loss_and_repeats_its_bits(trained):
    params, losses = trained[0], np.asarray(trained[1])
    assert losses.shape == (100,)
    assert losses[-10:].mean() < losses[:3].mean() / 5
    again, _ = signal_model.pretrain(jax.random.key(2), "mixed", 100, 64)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, again)))
    other, _ = signal_model.pretrain(jax.random.key(3), "mixed", 100, 64)
    kernels = [np.asarray(x["layer_0"]["kernel"]) for x in (other, params)]
    assert not (kernels[0] == kernels[1]).any()


def test_pretraining_is_adam_on_the_next_value_of_fresh_sequences():
    key = jax.random.key(9)
    params, losses = signal_model.pretrain(key, "line", 3, 16)
    theta = INITIALISE(jax.random.fold_in(key, 0), "xavier")
    theta = jax.tree.map(np.asarray, theta)
    first = second = jax.tree.map(np.zeros_like, theta)
    seen = []

    @jax.jit
    @jax.value_and_grad
    def loss_fn(theta, points):
        guess = signal_model.next_value(theta, points[:, :10])
        return jnp.mean((guess - points[:, 10]) ** 2)

    for step in range(3):
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        points = families.family_batch("line", step_key, 16, 11)
        seen.append(np.asarray(points))
        loss, gradient = loss_fn(theta, points)
        gradient = jax.tree.map(np.asarray, gradient)
        np.testing.assert_allclose(losses[step], loss, rtol=1e-4)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
        theta = jax.tree.map(
            lambda w, m, v, t=step + 1: (
                w - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            theta,
            first,
            second,
        )
    assert len(np.unique(np.concatenate(seen), axis=0)) == 48
    for got, expected in zip(jax.tree.leaves(params), jax.tree.leaves(theta), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("family", ["xavier", "one_line", "sine"])
def test_pretraining_on_an_unknown_family_is_refused(family):
    with pytest.raises(ArgumentError, match="line, sinusoid"):
        signal_model.pretrain(KEY, family, 2, 2)


@pytest.mark.parametrize("law", ["xavier", "kaiming", "orthogonal"])
def test_initialisations_have_their_laws(law):
    params = INITIALISE(KEY, law)
    shapes = [(10, 128), (128, 128), (128, 128), (128, 128), (128, 1)]
    for index, (fan_in, fan_out) in enumerate(shapes):
        kernel = np.asarray(params[f"layer_{index}"]["kernel"], np.float64)
        bias = np.asarray(params[f"layer_{index}"]["bias"])
        assert (kernel.shape, bias.shape) == ((fan_in, fan_out), (fan_out,))
        assert not bias.any()
        if law == "orthogonal":
            gram = kernel @ kernel.T if fan_in <= fan_out else kernel.T @ kernel
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
            continue
        variance = 2 / (fan_in + fan_out) if law == "xavier" else 2 / fan_in
        fourth = 9 / 5 if law == "xavier" else 3  # E[w⁴] / E[w²]²: uniform, normal
        spread = math.sqrt((fourth - 1) / kernel.size)
        assert abs((kernel**2).mean() / variance - 1) < 5 * spread
        assert abs(kernel.mean()) < 5 * math.sqrt(variance / kernel.size)
        if law == "xavier":
            assert np.abs(kernel).max() <= math.sqrt(3 * variance) + 1e-6
    kernels = [np.asarray(params[f"layer_{i}"]["kernel"]) for i in (1, 2, 3)]
    assert not (kernels[0] == kernels[1]).any()
    assert not (kernels[1] == kernels[2]).any()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ArgumentError, match="xavier, kaiming, orthogonal"):
        signal_model.initialise(KEY, "he")
