"""One set of statistics for every dense law: fixed keys, bounds from the errors.

A bound is a number of standard errors: 4.5 of one estimate, 5.5 of the largest among thousands.
"""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import leaf_noise
from scipy.special import ndtr

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import threefry
from thicket_jax.experts.laws import DENSE
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise

LARGE = 2**20
every_family = pytest.mark.parametrize("family", DENSE)
every_prng = pytest.mark.parametrize("prng", ["threefry2x32", "threefry4x32"])


def draw(family, key, shape):
    return np.asarray(jax.jit(DENSE[family].draw, static_argnums=1)(key, shape))


def many(family, seed=7):
    return draw(family, jax.random.key(seed), (LARGE,)).astype(np.float64)


@functools.cache
def experts_noise(family, prng="threefry2x32"):
    """Noise of 512 experts for two leaves of one shape: each float64 [512, 1024]."""
    law = Noise(family)
    experts = tj.population(jax.random.key(5, impl=prng), 512, 0.1, noise=law)
    axes = tj.Population(None, 0, 0, 0, law)

    def leaves(expert):
        return [leaf_noise(expert, path, (32, 32)) for path in ("layers.0.w", "layers.1.w")]

    drawn = jax.jit(jax.vmap(leaves, in_axes=(axes,)))(experts)
    return [np.asarray(leaf, np.float64).reshape(512, 1024) for leaf in drawn]


def correlations(rows, columns):
    """The z value of every row's correlation with every column: rows [R, n], columns [C, n]."""
    rows, columns = (x - x.mean(1, keepdims=True) for x in (rows, columns))
    rows, columns = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    return rows @ columns.T * math.sqrt(rows.shape[1])


def test_the_public_functions_name_the_families():
    for make in (tj.gaussian, tj.rademacher, tj.tied_gaussian):
        assert make() == Noise(make.__name__, None, "absolute")
        assert make(where="w", scale="relative") == Noise(make.__name__, "w", "relative")
    assert {law.family for law in (tj.gaussian(), tj.rademacher(), tj.tied_gaussian())} == set(
        DENSE
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Noise("cauchy"), ["'cauchy'", "gaussian, rademacher, tied_gaussian"]),
        (lambda: tj.gaussian(scale="rms"), ["scale='rms'", "absolute, relative"]),
        (lambda: Noise("gaussian", version=2), ["version 2", "use the release"]),
        (lambda: tj.rademacher(where="(kernel"), ["where='(kernel'", "regular expression"]),
        (lambda: tj.gaussian(where=["kernel"]), ["where=['kernel']", "text"]),
        (lambda: Noise("gaussian", rounded=False), ["rounded=False", "'low_rank'", "'gaussian'"]),
        (lambda: Noise("rademacher", rounded=False), ["rounded=False", "'rademacher'"]),
        (lambda: tj.low_rank(1, rounded=0), ["rounded=0", "True or False"]),
    ],
)
def test_what_cannot_be_a_law_is_one_line_that_says_so(make, says):
    with pytest.raises(ArgumentError) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in says), text


def test_rounded_is_part_of_a_law_and_written_only_where_it_is_false():
    rounded, other = tj.low_rank(2), tj.low_rank(2, rounded=False)
    assert rounded != other and hash(rounded) != hash(other)
    assert "rounded" not in rounded.to_json() and "rounded" not in rounded.options_json()
    assert other.to_json() == {**rounded.to_json(), "rounded": False}
    for law in (rounded, other):
        assert Noise.from_json(json.loads(json.dumps(law.to_json()))) == law
        experts = tj.population(jax.random.key(0), 2, 0.1, noise=law)
        assert tj.Population.from_json(experts.to_json()).noise == law


def test_both_laws_of_rounding_draw_the_same_noise():
    params = {"w": jnp.ones((6, 5)), "h": jnp.ones((6, 5), "bfloat16"), "v": jnp.ones(5, "float16")}
    moved = [
        tj.perturb(params, tj.population(jax.random.key(0), 1, 0.1, noise=law)[0])
        for law in (tj.low_rank(2), tj.low_rank(2, rounded=False))
    ]
    assert moved[1]["h"].dtype == "float32"
    np.testing.assert_array_equal(moved[1]["h"].astype("bfloat16"), moved[0]["h"])
    for name in ("w", "v"):
        np.testing.assert_array_equal(moved[1][name], moved[0][name])


# The values.


@every_family
def test_mean_is_0_and_variance_is_1(family):
    values = many(family)
    assert abs(values.mean()) < 4.5 / math.sqrt(LARGE)
    # The variance of ε² is E[ε⁴] − 1: 2 of a normal law, 0 of signs, whose square is exactly 1.
    error = math.sqrt(2 / LARGE)
    assert abs(np.square(values).mean() - 1) < 4.5 * error
    assert family != "rademacher" or np.square(values).mean() == 1


@pytest.mark.parametrize("family", ["gaussian", "tied_gaussian"])
def test_gaussian_is_normal(family):
    values = many(family)
    assert abs((values**3).mean()) < 4.5 * math.sqrt(15 / LARGE)
    assert abs((values**4).mean() - 3) < 4.5 * math.sqrt(96 / LARGE)
    # Kolmogorov and Smirnov's distance is below 1.95 / sqrt(N) in 999 of 1000 samples.
    below = ndtr(np.sort(values))
    steps = np.arange(LARGE + 1) / LARGE
    distance = max((steps[1:] - below).max(), (below - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(LARGE)
    assert 4.5 < np.abs(values).max() < 6


def draws(draw, key, shapes):
    """Draws of several shapes, by one program: shape → array."""
    return jax.jit(lambda key: {shape: draw(key, shape) for shape in shapes})(key)


@every_prng
def test_rademacher_is_the_words_bits(prng):
    """A slow reference: element i is bit i // W of word i % W, and a set bit is −1."""
    key = jax.random.key(11, impl=prng)
    shapes = [(1,), (31,), (32,), (33,), (3, 5, 7), (64, 9)]
    counts = {shape: math.ceil(math.prod(shape) / 32) for shape in shapes}
    words_of = lambda key, shape: jax.random.bits(key, (counts[shape],), jnp.uint32)  # noqa: E731
    every, drawn = draws(words_of, key, shapes), draws(DENSE["rademacher"].draw, key, shapes)
    for shape, num_words in counts.items():
        words = np.asarray(every[shape]).tolist()
        expected = [
            -1.0 if words[i % num_words] >> (i // num_words) & 1 else 1.0
            for i in range(math.prod(shape))
        ]
        np.testing.assert_array_equal(
            drawn[shape], np.asarray(expected, np.float32).reshape(shape), err_msg=str(shape)
        )


@every_prng
def test_rademacher_is_signs_balanced_in_each_of_the_32_bits(prng):
    values = draw("rademacher", jax.random.key(7, impl=prng), (LARGE,))
    assert set(np.unique(values)) == {-1.0, 1.0}
    by_bit = values.reshape(32, LARGE // 32).astype(np.float64)
    assert (np.abs(by_bit.mean(1)) * math.sqrt(LARGE // 32)).max() < 4.5
    between = correlations(by_bit, by_bit)[np.triu_indices(32, 1)]
    assert np.abs(between).max() < 4.5


# Independence.


@every_family
@every_prng
def test_experts_are_uncorrelated(family, prng):
    noise = experts_noise(family, prng)[0]
    between = correlations(noise, noise)[np.triu_indices(512, 1)]
    assert np.abs(between).max() < 5.5
    # The squares of n z values add up to about a chi-square of n degrees of freedom.
    assert abs(np.square(between).mean() - 1) < 4.5 * math.sqrt(2 / between.size)


@pytest.mark.parametrize("family", ["gaussian", "rademacher"])
def test_leaves_of_the_same_shape_are_uncorrelated(family):
    noise = experts_noise(family)
    between = correlations(noise[0], noise[1])
    assert np.abs(between).max() < 5.5
    assert np.abs(np.diagonal(between)).max() < 4.5
    assert abs(np.square(between).mean() - 1) < 4.5 * math.sqrt(2 / between.size)


def test_tied_leaves_of_the_same_shape_are_fully_correlated():
    noise = experts_noise("tied_gaussian")
    np.testing.assert_array_equal(noise[0], noise[1])


@every_family
def test_neighbouring_elements_are_uncorrelated(family):
    """Along both axes, and between the signs that come from one word (LARGE // 32 apart)."""
    values = many(family)
    for lag in (1, 2, 31, 32, 33, 1024, LARGE // 32, LARGE // 4):
        z = (values[:-lag] * values[lag:]).sum() / math.sqrt(LARGE - lag)
        assert abs(z) < 4.5, lag


@every_family
def test_the_draw_of_sigmas_is_uncorrelated_with_the_noise(family):
    drawn = tj.population(jax.random.key(5), 512, (1, 2, 3), assign="random").sigmas
    noise = experts_noise(family)[0]
    between = correlations(np.asarray(drawn, np.float64)[None], noise.T)
    assert np.abs(between).max() < 5.5
    assert abs(np.square(between).mean() - 1) < 4.5 * math.sqrt(2 / between.size)


@every_prng
def test_gaussian_is_jax_random_normal(prng):
    key, shapes = jax.random.key(23, impl=prng), [(), (1,), (5, 7), (100_003,)]
    drawn, expected = (draws(x, key, shapes) for x in (DENSE["gaussian"].draw, jax.random.normal))
    for shape in shapes:
        np.testing.assert_array_equal(drawn[shape], expected[shape], err_msg=str(shape))


def test_words_are_jax_random_bits():
    keys = jax.random.split(jax.random.key(29), 3)
    drawn = jax.jit(jax.vmap(lambda key: threefry.words(key, (1001,))))(keys)
    expected = [jax.random.bits(key, (1001,)) for key in keys]
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("family", ["gaussian", "rademacher"])
@pytest.mark.parametrize(
    ("shapes", "prng"),
    [
        (((1024, 1024),), "threefry2x32"),
        (((1024, 1024),), "threefry4x32"),
        (((128, 128),) * 4, "threefry2x32"),
    ],
    ids=["one", "one of 4x32", "four"],
)
def test_no_array_of_noise_survives_compiling(shapes, family, prng):
    params = {f"w{i}": jax.ShapeDtypeStruct(shape, jnp.float32) for i, shape in enumerate(shapes)}
    expert = tj.population(jax.random.key(0, impl=prng), 1, 0.1, noise=Noise(family))[0]
    scales = np.ones(len(shapes), np.float32)
    compiled = jax.jit(apply_noise).lower(params, expert, scales).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * memory.output_size_in_bytes
