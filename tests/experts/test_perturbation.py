"""The recipe that anyone can follow, sums in the wide dtype, and what `perturb` refuses."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError

KEY = jax.random.key(3)


def expert(law=None, sigma=0.25):
    return tj.population(KEY, 6, sigma, noise=law)[5]


def refusal(error, act):
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The recipe.


def rebuild(leaf, population, i, path):
    """One leaf of one expert with NumPy and jax.random alone, as README tells a stranger to."""
    key = jax.random.fold_in(population.key, int(population.ids[i]))
    name = np.uint32(int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big"))
    key = jax.random.fold_in(key, name)
    if population.noise.family == "rademacher":
        num_words = -(-leaf.size // 32)
        words = np.asarray(jax.random.bits(key, (num_words,), jnp.uint32))
        bits = (words[None] >> np.arange(32, dtype=np.uint32)[:, None]) & 1
        noise = np.where(bits == 1, -1.0, 1.0).reshape(-1)[: leaf.size].reshape(leaf.shape)
    else:
        noise = np.asarray(jax.random.normal(key, leaf.shape, jnp.float32))
    factor = np.float32(population.signs[i]) * np.float32(population.sigmas[i])
    return leaf.astype(np.float64) + np.float64(factor) * noise.astype(np.float64)


@pytest.mark.parametrize("prng", ["threefry2x32", "threefry4x32"])
@pytest.mark.parametrize("law", [tj.gaussian(), tj.rademacher()], ids=lambda law: law.family)
def test_the_recipe_rebuilds_an_expert(law, prng):
    key = jax.random.key(2**40 + 17, impl=prng)
    experts = tj.population(key, 8, (0.1, 0.3), noise=law, antithetic=True)
    leaf = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    tree = {"encoder": [{"kernel": jnp.asarray(leaf)}]}
    found = np.asarray(tj.perturb(tree, experts[7])["encoder"][0]["kernel"])
    exact = rebuild(leaf, experts, 7, "encoder.0.kernel")
    if law.family == "rademacher":
        np.testing.assert_array_equal(found, exact.astype(np.float32))
    # A compiler may multiply sigma by the normal's own constant first: ulps of the larger term.
    ulp = np.spacing(np.maximum(np.abs(leaf), np.abs(exact - leaf)).astype(np.float32))
    assert (np.abs(found - exact) <= 3 * ulp).all()
    assert np.abs(found - leaf).max() > 0.05


def test_float64_leaves_are_summed_in_float64():
    with jax.enable_x64(True):
        leaf = np.random.default_rng(0).normal(size=(5, 9))
        experts = tj.population(KEY, 2, 0.1)
        found = tj.perturb({"w": jnp.asarray(leaf)}, experts[1])["w"]
        assert found.dtype == jnp.float64
        exact = rebuild(leaf, experts, 1, "w")
        np.testing.assert_allclose(np.asarray(found), exact, rtol=0, atol=1e-15)
        assert (np.asarray(found) != exact.astype(np.float32)).any()


def test_numpy_and_python_leaves_become_arrays():
    tree = {"a": np.ones(3, np.float32), "b": 1.5, "steps": 3}
    found = tj.perturb(tree, expert())
    assert found["a"].dtype == found["b"].dtype == jnp.float32
    assert found["steps"] == 3
    np.testing.assert_array_equal(tree["a"], np.ones(3, np.float32))


# What is refused.


def test_perturb_takes_one_expert():
    tree, experts = {"w": jnp.ones(3)}, tj.population(KEY, 3, 0.1)
    np.testing.assert_array_equal(
        tj.perturb(tree, experts[2:])["w"], tj.perturb(tree, experts[2])["w"]
    )
    assert refusal(ArgumentError, lambda: tj.perturb(tree, experts)) == (
        "perturb takes one expert, got 3; pass experts[0], or use merge"
    )
    assert "got 0" in refusal(ArgumentError, lambda: tj.perturb(tree, experts[:0]))


@pytest.mark.parametrize("wrong", [7, None, {"w": 1}, [1]], ids=repr)
def test_perturb_takes_a_population(wrong):
    text = refusal(ArgumentError, lambda: tj.perturb({"w": jnp.ones(3)}, wrong))
    assert text == f"expert must be a Population, got {type(wrong).__name__}"


def test_perturb_refuses_keys_that_break_the_laws():
    one = dataclasses.replace(expert(), key=jax.random.key(0, impl="rbg"))
    assert "rbg" in refusal(ArgumentError, lambda: tj.perturb({"w": jnp.ones(3)}, one))
