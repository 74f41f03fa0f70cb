"""Populations: what is made, how it is cut and joined, what travels, and what is refused."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.population import PRNGS, key_data, prng_name

KEY = jax.random.key(3)


def columns(population):
    return [np.asarray(x) for x in (population.ids, population.sigmas, population.signs)]


def assert_equal(one, other):
    assert key_data(one.key) == key_data(other.key)
    assert prng_name(one.key) == prng_name(other.key)
    assert one.noise == other.noise
    for a, b in zip(columns(one), columns(other), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


# What is made.


def test_a_population_is_sixteen_bytes_an_expert():
    experts = tj.population(KEY, 7, 0.1)
    ids, sigmas, signs = columns(experts)
    assert (ids.dtype, sigmas.dtype, signs.dtype) == (np.int32, np.float32, np.float32)
    assert ids.tolist() == list(range(7))
    assert (sigmas == np.float32(0.1)).all()
    assert (signs == 1).all()
    assert experts.noise == tj.gaussian()
    assert len(experts) == 7
    assert sum(x.nbytes for x in (ids, sigmas, signs)) <= 16 * 7


@pytest.mark.parametrize("sigma", [(1, 2, 3), [1.0, 2.0, 3.0], np.asarray([1, 2, 3])], ids=str)
def test_cycle_deals_the_sigmas_out_in_turn(sigma):
    assert columns(tj.population(KEY, 8, sigma))[1].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]


def test_random_draws_every_sigma_equally_often():
    drawn = columns(tj.population(KEY, 9000, (1, 2, 3), assign="random"))[1]
    error = math.sqrt(9000 * (1 / 3) * (2 / 3))
    for sigma in (1, 2, 3):
        assert abs((drawn == sigma).sum() - 3000) < 4.5 * error
    assert drawn[:9].tolist() != [1, 2, 3] * 3
    other = tj.population(jax.random.key(1), 9000, (1, 2, 3), assign="random")
    assert (columns(other)[1] != drawn).any()


def test_a_larger_random_population_begins_with_the_smaller_one():
    large = tj.population(KEY, 9000, (1, 2, 3), assign="random")
    assert_equal(large[:12], tj.population(KEY, 12, (1, 2, 3), assign="random"))


@pytest.mark.parametrize("assign", ["cycle", "random"])
def test_antithetic_pairs_share_id_and_sigma(assign):
    ids, sigmas, signs = columns(tj.population(KEY, 12, (1, 2), antithetic=True, assign=assign))
    assert ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert signs.tolist() == [1, -1] * 6
    np.testing.assert_array_equal(sigmas[::2], sigmas[1::2])
    if assign == "cycle":
        assert sigmas[::2].tolist() == [1, 2] * 3


@pytest.mark.parametrize("prng", PRNGS)
def test_the_key_is_not_consumed(prng):
    key = jax.random.key(9, impl=prng)
    experts = tj.population(key, 12, (1, 2), assign="random")
    assert_equal(experts, tj.population(key, 12, (1, 2), assign="random"))
    assert prng_name(experts.key) == prng
    assert key_data(experts.key) == key_data(key)


# Cutting and joining.


@pytest.mark.parametrize(
    "index",
    [
        slice(2, 5),
        slice(None, None, -1),
        slice(0, 0),
        [4, 0, 4],
        [],
        (1, 2),
        np.asarray([-1, 3]),
        jnp.asarray([5, 1]),
        np.arange(6) % 2 == 0,
        [True, False, False, True, False, False],
    ],
    ids=str,
)
def test_an_index_gives_a_population_as_numpy_would(index):
    experts = tj.population(KEY, 6, (1, 2, 3))
    numpy_index = index if isinstance(index, slice) else np.asarray(index)
    numpy_index = numpy_index.astype(int) if np.size(index) == 0 else numpy_index
    found = experts[index]
    assert isinstance(found, tj.Population)
    for column, expected in zip(columns(found), columns(experts), strict=True):
        np.testing.assert_array_equal(column, expected[numpy_index])
    assert len(found) == len(np.arange(6)[numpy_index])


@pytest.mark.parametrize("index", [2, -4, np.int64(2), np.asarray(2), jnp.asarray(2)], ids=repr)
def test_an_integer_gives_one_expert_without_an_axis(index):
    expert = tj.population(KEY, 6, (1, 2, 3))[index]
    assert [x.shape for x in columns(expert)] == [(), (), ()]
    assert [float(x) for x in columns(expert)] == [2, 3, 1]


def test_iterating_gives_every_expert_in_order():
    experts = tj.population(KEY, 4, (1, 2))
    assert [(int(e.ids), float(e.sigmas)) for e in experts] == [(0, 1), (1, 2), (2, 1), (3, 2)]


def test_joining_restores_what_was_cut():
    experts = tj.population(KEY, 6, (1, 2, 3), antithetic=True)
    assert_equal(experts[:2] + experts[2:5] + experts[5:], experts)


@pytest.mark.parametrize(
    "index",
    [6, -7, [0, 6], np.asarray([-7]), [True, False], 1.5, [0.5], "a", None, [[1, 2]], (slice(2),)],
    ids=repr,
)
def test_a_wrong_index_is_an_error_and_is_not_clamped(index):
    with pytest.raises(IndexError) as caught:
        tj.population(KEY, 6, 1)[index]
    assert "population of 6" in str(caught.value)


def test_a_single_expert_has_no_length_and_no_parts():
    expert = tj.population(KEY, 6, 1)[0]
    for act in (len, list, lambda e: e[0], lambda e: e[:1]):
        with pytest.raises(TypeError, match="single expert"):
            act(expert)
    with pytest.raises(ArgumentError, match="single expert"):
        expert + expert


def test_only_populations_of_one_key_and_law_are_joined():
    experts = tj.population(KEY, 2, 1)
    with pytest.raises(ArgumentError, match="different keys"):
        experts + tj.population(jax.random.key(4), 2, 1)
    with pytest.raises(ArgumentError, match="noise laws"):
        experts + tj.population(KEY, 2, 1, noise=tj.rademacher())
    with pytest.raises(TypeError):
        experts + [1]


# Travelling.


def test_a_population_goes_through_jit_and_its_law_is_static():
    experts = tj.population(KEY, 4, (1, 2), noise=tj.rademacher(where="w"))
    assert len(jax.tree.leaves(experts)) == 4
    traced = []

    @jax.jit
    def double(population):
        traced.append(population.noise)
        return jax.tree.map(lambda x: x, population), population.sigmas * 2

    again, doubled = double(experts)
    assert_equal(again, experts)
    assert doubled.tolist() == [2, 4, 2, 4]
    double(experts[::-1])
    assert traced == [tj.rademacher(where="w")]


@pytest.mark.parametrize("prng", PRNGS)
@pytest.mark.parametrize(
    "law",
    [tj.gaussian(), tj.rademacher(where=r"k\"ernel\.σ$"), tj.tied_gaussian(scale="relative")],
    ids=["gaussian", "rademacher", "tied_gaussian"],
)
def test_json_returns_every_bit(law, prng):
    rng = np.random.default_rng(0)
    sigma = np.concatenate(
        [
            rng.lognormal(-5, 3, 40).astype(np.float32),
            np.asarray([np.finfo(np.float32).tiny, np.finfo(np.float32).max], np.float32),
            np.nextafter(np.float32(0.1), np.float32([0, 1])),
        ]
    )
    experts = tj.population(
        jax.random.key(2**31 - 1, impl=prng), 88, sigma, noise=law, antithetic=True
    )
    text = json.dumps(experts.to_json(), allow_nan=False)
    assert_equal(tj.Population.from_json(json.loads(text)), experts)
    chosen = experts[[9, 3]]
    assert_equal(tj.Population.from_json(json.loads(json.dumps(chosen.to_json()))), chosen)


# What is refused, as a user would type it.


def refusal(*args, **options):
    with pytest.raises(ArgumentError) as caught:
        tj.population(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert isinstance(caught.value, tj.ThicketError)
    return text


@pytest.mark.parametrize(
    ("sigma", "says"),
    [
        (0, "sigma=0 must be positive and finite"),
        (-1, "sigma=-1 must be positive and finite"),
        (float("nan"), "sigma=nan must be positive and finite"),
        (float("inf"), "sigma=inf must be positive and finite"),
        ((1e-3, 0.0), "sigma=0 must be positive and finite"),
        (1e-60, "sigma=1e-60 is outside the range of float32"),
        (1e-40, "sigma=1e-40 is outside the range of float32"),
        (1e60, "sigma=1e+60 is outside the range of float32"),
        ([], "sigma=[] must be a positive number or a sequence"),
        ("a", "sigma='a' must be a positive number or a sequence"),
        ("0.1", "sigma='0.1' must be a positive number or a sequence"),
        (None, "sigma=None must be a positive number or a sequence"),
        (True, "sigma=True must be a positive number or a sequence"),
        (1j, "sigma=1j must be a positive number or a sequence"),
        ([[0.1]], "sigma=[[0.1]] must be a positive number or a sequence"),
        ([0.1, [0.2]], "sigma=[0.1, [0.2]] must be a positive number or a sequence"),
    ],
    ids=repr,
)
def test_a_bad_sigma_is_named(sigma, says):
    assert refusal(KEY, 4, sigma).startswith(says)


@pytest.mark.parametrize("num", [0, -3, 2.5, 1e3, True, None, "10", [4]], ids=repr)
def test_a_bad_count_is_named(num):
    assert refusal(KEY, num, 0.1) == f"num={num!r} must be a whole number of at least 1"


def test_more_experts_than_ids_are_refused_before_anything_is_made():
    assert "2**31" in refusal(KEY, 2**31, 0.1)


@pytest.mark.parametrize("num", [np.int32(3), np.uint8(3)])
def test_numpy_counts_are_counts(num):
    assert len(tj.population(KEY, num, 0.1)) == 3


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (np.asarray([0, 42], np.uint32), "uint32[2]"),
        (jnp.asarray([0, 42], jnp.uint32), "uint32[2]"),
        (0, "int[]"),
        (None, "NoneType[]"),
        (np.random.default_rng(0), "Generator[]"),
    ],
    ids=["numpy", "legacy", "int", "None", "Generator"],
)
def test_what_is_not_a_typed_key_is_named_with_the_mend(key, found):
    text = refusal(key, 4, 0.1)
    assert found in text
    assert "jax.random.key(seed)" in text
    assert "wrap_key_data" in text


def test_the_mend_for_a_legacy_key_works():
    legacy = jnp.asarray([0, 3], jnp.uint32)
    assert_equal(
        tj.population(jax.random.wrap_key_data(legacy), 4, 0.1), tj.population(KEY, 4, 0.1)
    )


@pytest.mark.parametrize("prng", ["rbg", "unsafe_rbg", "philox2x32", "philox4x32"])
def test_other_implementations_are_refused_with_the_reason(prng):
    text = refusal(jax.random.key(0, impl=prng), 4, 0.1)
    assert text.startswith(f"key of {prng} is refused")
    assert "vmap" in text
    assert all(f"'{name}'" in text for name in PRNGS)


def test_a_batch_of_keys_is_refused():
    text = refusal(jax.random.split(KEY), 4, 0.1)
    assert "single key" in text
    assert "(2,)" in text


def test_an_odd_antithetic_population_is_told_the_next_number():
    assert refusal(KEY, 5, 0.1, antithetic=True) == (
        "num=5 must be even with antithetic=True; use 6"
    )


@pytest.mark.parametrize(
    "noise",
    ["gaussian", tj.gaussian, {"family": "gaussian"}],
    ids=["name", "function", "json"],
)
def test_a_law_that_is_not_a_law_is_refused(noise):
    assert "must be a Noise: tj.gaussian()" in refusal(KEY, 4, 0.1, noise=noise)


def test_an_unknown_assignment_is_refused():
    assert refusal(KEY, 4, 0.1, assign="uniform") == (
        "assign='uniform' is unknown; choose one of: cycle, random"
    )
