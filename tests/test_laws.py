"""DESIGN's laws of regeneration: an expert depends on (θ, population, i) and on nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

import thicket_jax as tj

LAWS = [
    tj.gaussian(),
    tj.rademacher(),
    tj.tied_gaussian(),
    tj.gaussian(scale="relative"),
    tj.low_rank(2),
]
NAMES = ["gaussian", "rademacher", "tied_gaussian", "relative", "low_rank"]
every_law = pytest.mark.parametrize("law", LAWS, ids=NAMES)


def population(law, num=21, prng="threefry2x32", **options):
    return tj.population(jax.random.key(3, impl=prng), num, (0.1, 0.3), noise=law, **options)


def same(one, other):
    """Equal trees, to the bit."""
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), y), one, other)


def flat(tree):
    """As `models.flat`, in numpy: without a program."""
    kept = [x for x in map(np.asarray, jax.tree.leaves(tree)) if x.dtype.kind not in "bi"]
    return np.concatenate([x.astype(np.float32).ravel() for x in kept])


def alone(params, experts):
    """Every expert generated alone, one row each: the slow, obvious reference."""
    return np.stack([flat(tj.perturb(params, e)) for e in experts])


def wide(values=lambda x: x):
    """The parameters with no leaf in half precision."""
    params = models.params()
    return {**params, "half": params["half"].astype(jnp.float32)}


@pytest.mark.parametrize(
    ("name", "prng", "backend", "block_size", "count"),
    [
        ("gaussian", "threefry2x32", "pmap", 7, 8),
        ("gaussian", "threefry2x32", "shard_map", 7, 8),
        ("gaussian", "threefry4x32", "pmap", 3, 8),
        ("rademacher", "threefry2x32", "pmap", 1, 8),
        ("rademacher", "threefry2x32", "shard_map", 1, 8),
        ("rademacher", "threefry2x32", "none", 7, 1),
        ("tied_gaussian", "threefry2x32", "pmap", 7, 8),
        ("relative", "threefry2x32", "pmap", 2, 2),
        ("low_rank", "threefry2x32", "pmap", 1, 8),
        ("low_rank", "threefry2x32", "none", 7, 1),
        ("low_rank", "threefry2x32", "shard_map", 2, 2),
    ],
)
def test_same_bits_alone_in_any_block_and_on_any_devices(name, prng, backend, block_size, count):
    """Of θ, which is what it was: nothing is added in place and subtracted again."""
    law = dict(zip(NAMES, LAWS, strict=True))[name]
    params, experts = models.params(), population(law, prng=prng)
    before = jax.tree.map(np.array, params)
    how = {"block_size": block_size, "backend": backend, "devices": jax.devices()[:count]}
    scores = tj.score(models.flat, params, experts, None, **how)
    np.testing.assert_array_equal(scores.items, alone(params, experts))
    same(params, before)


@every_law
def test_same_bits_sharded_and_replicated(law):
    mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))

    def over(leaf, *axes):
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        return {"kernel": jax.device_put(leaf["kernel"], rows)}

    params, expert = models.params(), population(law)[5]
    first, second = over(params["first"], "model"), over(params["second"], None, "model")
    expected = tj.perturb(params, expert)
    same(tj.perturb({**params, "first": first, "second": second}, expert), expected)


def test_same_bits_of_a_sharded_leaf_of_no_even_size():
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model"))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(64, 33)), jnp.float32)}
    sharded, expert = jax.device_put(params, rows), population(tj.gaussian())[5:6]
    expected = flat(tj.perturb(params, expert))
    np.testing.assert_array_equal(flat(tj.perturb(sharded, expert)), expected)
    # A program that is mapped gets the same array, whatever the law.
    scores = tj.score(models.flat, sharded, expert, None, backend="none", block_size=1)
    np.testing.assert_array_equal(scores.items[0], expected)


@every_law
def test_same_bits_inside_the_users_own_jit_and_vmap_and_where_all_is_a_constant(law):
    params, experts = models.params(), population(law, num=5)
    expected = alone(params, experts)
    axes = tj.Population(None, 0, 0, 0, law)

    @jax.jit
    def run(experts):
        moved = jax.vmap(lambda e: models.flat(tj.perturb(params, e)), in_axes=(axes,))(experts)
        return moved, models.flat(tj.perturb(params, constant))

    constant = experts[1]
    together, folded = run(experts)
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(folded, expected[1])


@every_law
def test_order_slicing_and_joining_do_not_change_an_expert(law):
    params, experts = models.params(), population(law)
    expected = alone(params, experts)
    chosen = np.asarray([7, 2, 20, 2])
    np.testing.assert_array_equal(alone(params, experts[chosen]), expected[chosen])
    joined = experts[10:] + experts[:10]
    np.testing.assert_array_equal(
        alone(params, joined), np.concatenate([expected[10:], expected[:10]])
    )


@every_law
def test_a_larger_population_begins_with_the_smaller_one(law):
    small, large = population(law, num=6), population(law, num=60)
    np.testing.assert_array_equal(alone(models.params(), small), alone(models.params(), large[:6]))


@pytest.mark.parametrize("law", [tj.gaussian(), tj.rademacher()], ids=["gaussian", "rademacher"])
def test_an_extra_leaf_or_another_order_changes_no_other_noise(law):
    params, expert = models.params(), population(law)[4]
    expected = tj.perturb(params, expert)
    # Leaves of one shape and dtype are moved together; nobody's bits may notice.
    twins = {"twins": jax.tree.map(jnp.ones_like, params)}
    more = {"another": jnp.ones((4, 4)), **twins, **dict(reversed(params.items()))}
    found = tj.perturb(more, expert)
    found = {name: found[name] for name in params}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@every_law
def test_equal_shapes_get_different_noise_unless_they_are_tied(law):
    # The parameters of the tests below, all alike: their program.
    moved = tj.perturb(jax.tree.map(jnp.ones_like, wide()), population(law)[0])
    first, second = (np.asarray(moved[name]["kernel"]) for name in ("first", "second"))
    assert np.array_equal(first, second) == (law.family == "tied_gaussian")


def test_tied_gaussian_gives_another_shape_of_the_same_size_other_noise():
    zeros = {"a": jnp.zeros((8, 8)), "c": jnp.zeros((64,))}
    moved = tj.perturb(zeros, population(tj.tied_gaussian())[0])
    assert not np.array_equal(moved["a"].reshape(-1), moved["c"])


@every_law
def test_noise_is_rounded_once_to_the_leafs_dtype(law):
    """A bfloat16 leaf gets the float32 sum, rounded: no rounding of noise or of θ before it."""
    params, expert = models.params(), population(law)[9]
    in_float32 = tj.perturb(wide(), expert)["half"]
    in_half = tj.perturb(params, expert)["half"]
    assert in_half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(in_half, np.float32), np.asarray(in_float32.astype(jnp.bfloat16), np.float32)
    )


def test_no_drift_after_a_thousand_experts_in_bfloat16():
    """The official code adds and subtracts in place, which drifts; here θ is always the same."""
    params, law = models.params(), tj.gaussian()
    before, experts = jax.tree.map(np.array, params), population(law, num=1000)
    first = tj.perturb(params, experts[0])
    tj.score(models.flat, params, experts, None, block_size=7)  # a program of the tests above
    same(tj.perturb(params, experts[0]), first)
    same(params, before)


@every_law
def test_sigma_is_linear(law):
    """Doubling sigma doubles the movement, to float32 rounding of the sum."""
    params = wide()
    one = tj.population(jax.random.key(3), 1, 0.25, noise=law)
    two = dataclasses.replace(one, sigmas=2 * one.sigmas)
    moved = alone(params, one)[0] - flat(params), alone(params, two)[0] - flat(params)
    np.testing.assert_allclose(moved[1], 2 * moved[0], atol=1e-6)
    assert np.abs(moved[0]).max() > 0.05


@every_law
def test_antithetic_pairs_are_mirror_images(law):
    ones = jax.tree.map(jnp.ones_like, wide())
    moved = alone(ones, population(law, num=6, antithetic=True)) - 1
    np.testing.assert_allclose(moved[::2], -moved[1::2], atol=1e-6)
    assert np.abs(moved).max() > 0.05


@pytest.mark.parametrize(
    ("law", "prng"),
    [*((law, "threefry2x32") for law in LAWS), *((law, "threefry4x32") for law in LAWS[:2])],
)
def test_an_ensemble_is_a_small_file_that_regenerates_it(law, prng):
    import json

    experts = population(law, prng=prng)[[3, 1, 19]]
    text = json.dumps(experts.to_json())
    assert len(text) < 1000
    again = tj.Population.from_json(json.loads(text))
    np.testing.assert_array_equal(alone(models.params(), again), alone(models.params(), experts))


@pytest.mark.parametrize("law", LAWS[2:], ids=NAMES[2:])  # of signs: test_prediction.py
def test_ensembles_and_merges_use_the_noise_that_was_scored_and_leave_theta(law):
    params, experts = models.params(), population(law)[:4]
    before, expected = jax.tree.map(np.array, params), alone(params, experts)
    predict = tj.ensemble(models.flat, params, experts, combine=lambda rows: rows, block_size=1)
    np.testing.assert_array_equal(predict(None), expected)
    merged = flat(tj.merge(params, experts))
    kept = np.r_[0:16, 53:69]  # all but the leaf whose steps are rounded to bfloat16
    np.testing.assert_allclose(merged[kept], expected.astype(np.float64).mean(0)[kept], atol=2e-6)
    same(params, before)


def test_nothing_of_size_experts_times_parameters():
    """The compiled program's temporaries do not grow with N, and grow with the block."""
    from thicket_jax.mapping.blocks import expert_map
    from thicket_jax.mapping.functions import mapped
    from thicket_jax.mapping.placement import place

    params = {"w": jnp.zeros((256, 256))}

    def temporaries(num, block):
        experts = tj.population(jax.random.key(0, impl="threefry4x32"), num, 0.1)
        placement = place(params, devices=jax.devices()[:1], block_size=block)
        ready = expert_map(mapped(squares), params, tj.gaussian(), None, placement)
        return ready.program(experts).temporary_bytes

    def squares(params, _):
        return (params["w"] ** 2).sum()

    size = 4 * 256 * 256
    assert (four := temporaries(20, 4)) == temporaries(2000, 4)
    assert four < 16 * size < 2000 * size
    assert four < temporaries(20, 16)
