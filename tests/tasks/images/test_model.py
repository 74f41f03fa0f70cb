"""The net of images: against a slow version; pretraining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.tasks.images import model as image_model

KEY = jax.random.key(3)


def slow_convolution(x, kernel, bias, stride):
    B, H, W, _ = x.shape
    out = np.zeros((B, -(-H // stride), -(-W // stride), kernel.shape[-1]))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            for i in range(3):
                for j in range(3):
                    r, c = row * stride + i - 1, column * stride + j - 1
                    if 0 <= r < H and 0 <= c < W:
                        out[:, row, column] += x[:, r, c] @ kernel[i, j]
    return out + bias


def slow_logits(params, x):
    depth = sum(name.startswith("conv_") for name in params)
    for index in range(depth):
        layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[f"conv_{index}"])
        x = slow_convolution(x, layer["kernel"], layer["bias"], 2 if index else 1)
        x = np.maximum(x, 0)
    H, W = x.shape[1:3]
    top, bottom, left, right = -(-H // 2), H // 2, -(-W // 2), W // 2
    parts = [x[:, :top, :left], x[:, :top, right:], x[:, bottom:, :left], x[:, bottom:, right:]]
    pooled = np.concatenate([part.mean((1, 2)) for part in parts], -1)
    return pooled @ np.asarray(params["out"]["kernel"]) + np.asarray(params["out"]["bias"])


@pytest.mark.parametrize(("shape", "depth"), [((4, 4, 1), 1), ((9, 6, 3), 2), ((28, 28, 1), 4)])
def test_the_net_is_the_slow_one(shape, depth):
    net = image_model.Net(shape, 5)
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draw.normal(0, 0.2, leaf.shape).astype(leaf.dtype),
        jax.eval_shape(net.initialise, KEY),
    )
    x = draw.uniform(size=(3, *shape)).astype(np.float32)
    assert net.depth == depth
    found = jax.jit(net.logits)(params, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, slow_logits(params, x), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_computed_in_bfloat16():
    net = image_model.Net((8, 8, 1), 5)
    params = jax.eval_shape(net.initialise, KEY)
    text = str(
        jax.make_jaxpr(net.logits, static_argnums=2)(params, jnp.ones((3, 8, 8, 1)), "bfloat16")
    )
    products = [
        line for line in text.splitlines() if "conv_general" in line or "dot_general" in line
    ]
    assert len(products) == 3 and all("bf16[" in line for line in products)
    assert (
        jax.eval_shape(lambda p: net.logits(p, jnp.ones((3, 8, 8, 1)), "bfloat16"), params).dtype
        == jnp.float32
    )


def equal(params, others):
    return jax.tree.all(jax.tree.map(np.array_equal, params, others))


def test_pretraining_learns_and_repeats():
    # The shapes of the task in test_task, so that nothing is compiled again.
    net, labels = image_model.Net((8, 8, 1), 10), np.arange(1667, dtype=np.int32) % 2
    pictures = np.full((1667, 8, 8, 1), 0.1, np.float32)
    pictures[labels == 1] = [[[0.9]] * 4 + [[0.0]] * 4]
    params, losses = image_model.pretrain(net, KEY, pictures, labels, 24)
    assert losses.shape == (24,)
    losses = np.asarray(losses)
    assert losses[-5:].mean() < 0.5 * losses[:3].mean()
    again, _ = image_model.pretrain(net, KEY, pictures, labels, 24)
    assert equal(params, again)
    other, _ = image_model.pretrain(net, jax.random.key(4), pictures, labels, 24)
    assert not equal(params, other)
