"""DESIGN's laws of regeneration: an expert depends on (θ, population, i) and on nothing else."""

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


def alone(params, experts):
    """Every expert generated alone, one row each: the slow, obvious reference."""
    return np.stack([np.asarray(models.flat(tj.perturb(params, e))) for e in experts])


@pytest.mark.parametrize(
    ("law", "prng", "backend", "blocks"),
    [
        (tj.gaussian(), "threefry2x32", "pmap", (1, 7)),
        (tj.gaussian(), "threefry2x32", "shard_map", (7,)),
        (tj.gaussian(), "threefry2x32", "none", (1, 7)),
        (tj.gaussian(), "threefry4x32", "pmap", (3,)),
        (tj.rademacher(), "threefry2x32", "pmap", (1,)),
        (tj.rademacher(), "threefry2x32", "shard_map", (1,)),
        (tj.rademacher(), "threefry2x32", "none", (7,)),
        (tj.tied_gaussian(), "threefry2x32", "pmap", (7,)),
        (tj.low_rank(2), "threefry2x32", "pmap", (1, 7)),
    ],
    ids=lambda value: getattr(value, "family", None),
)
def test_same_bits_alone_and_in_any_block(law, prng, backend, blocks):
    """Blocks of 2, of every law, are in the next test."""
    params, experts = models.params(), population(law, prng=prng)
    expected = alone(params, experts)
    for block_size in blocks:
        scores = tj.score(
            models.flat, params, experts, None, block_size=block_size, backend=backend
        )
        np.testing.assert_array_equal(scores.items, expected)


@pytest.mark.parametrize(
    ("law", "count"), [*((law, 8) for law in LAWS), (LAWS[0], 2), (LAWS[-1], 2)]
)
def test_same_bits_on_any_number_of_devices(law, count):
    params, experts = models.params(), population(law)
    scores = tj.score(
        models.flat, params, experts, None, devices=jax.devices()[:count], block_size=2
    )
    np.testing.assert_array_equal(scores.items, alone(params, experts))


@every_law
def test_same_bits_sharded_and_replicated(law):
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model"))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(64, 33)), jnp.float32)}
    expert = population(law)[5]
    expected = tj.perturb(params, expert)["w"]
    sharded = tj.perturb({"w": jax.device_put(params["w"], rows)}, expert)["w"]
    np.testing.assert_array_equal(np.asarray(sharded), np.asarray(expected))
    if law != tj.gaussian():  # a program that is mapped gets the same array, whatever the law
        return
    scores = tj.score(
        models.flat,
        {"w": jax.device_put(params["w"], rows)},
        population(law)[5:6],
        None,
        backend="none",
    )
    np.testing.assert_array_equal(scores.items[0], np.asarray(expected).reshape(-1))


@every_law
def test_same_bits_inside_the_users_own_jit_and_vmap(law):
    params, experts = models.params(), population(law, num=5)
    expected = alone(params, experts)
    axes = tj.Population(None, 0, 0, 0, law)
    together = jax.jit(jax.vmap(lambda e: models.flat(tj.perturb(params, e)), in_axes=(axes,)))
    np.testing.assert_array_equal(np.asarray(together(experts)), expected)


@every_law
def test_same_bits_where_everything_is_a_constant_of_the_users_jit(law):
    params, experts = models.params(), population(law, num=2)
    folded = jax.jit(lambda: models.flat(tj.perturb(params, experts[1])))()
    np.testing.assert_array_equal(np.asarray(folded), alone(params, experts)[1])


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


@every_law
def test_theta_is_not_modified(law):
    params = models.params()
    before = jax.tree.map(lambda x: np.array(x), params)
    experts = population(law)
    tj.score(models.flat, params, experts, None, block_size=2)
    tj.merge(params, experts[:3])
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, params))


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


@pytest.mark.parametrize("law", [tj.gaussian(), tj.rademacher()], ids=["gaussian", "rademacher"])
def test_equal_shapes_get_different_noise(law):
    zeros = {"a": jnp.zeros((8, 8)), "b": jnp.zeros((8, 8))}
    moved = tj.perturb(zeros, population(law)[0])
    assert not np.array_equal(moved["a"], moved["b"])


def test_tied_gaussian_gives_equal_shapes_equal_noise_and_others_not():
    zeros = {"a": jnp.zeros((8, 8)), "b": jnp.zeros((8, 8)), "c": jnp.zeros((64,))}
    moved = tj.perturb(zeros, population(tj.tied_gaussian())[0])
    np.testing.assert_array_equal(moved["a"], moved["b"])
    assert not np.array_equal(moved["a"].reshape(-1), moved["c"])


@every_law
def test_noise_is_rounded_once_to_the_leafs_dtype(law):
    """A bfloat16 leaf gets the float32 sum, rounded: no rounding of noise or of θ before it."""
    params = models.params()
    expert = population(law)[9]
    wide = {**params, "half": params["half"].astype(jnp.float32)}
    in_float32 = tj.perturb(wide, expert)["half"]
    in_half = tj.perturb(params, expert)["half"]
    assert in_half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(in_half, np.float32), np.asarray(in_float32.astype(jnp.bfloat16), np.float32)
    )


def test_no_drift_after_a_thousand_experts_in_bfloat16():
    """The official code adds and subtracts in place, which drifts; here θ is always the same."""
    params = {"w": jnp.full((64,), 1.0, jnp.bfloat16)}
    experts = tj.population(jax.random.key(0), 1000, 0.01)
    first = tj.perturb(params, experts[0])["w"]
    tj.score(models.flat, params, experts, None)
    np.testing.assert_array_equal(
        np.asarray(tj.perturb(params, experts[0])["w"], np.float32), np.asarray(first, np.float32)
    )
    np.testing.assert_array_equal(np.asarray(params["w"], np.float32), np.ones(64, np.float32))


@every_law
def test_sigma_is_linear(law):
    """Doubling sigma doubles the movement, to float32 rounding of the sum."""
    params, experts = models.params(), population(law)
    base = np.asarray(models.flat({k: v for k, v in params.items() if k != "half"}))
    params = {k: v for k, v in params.items() if k != "half"}
    one = tj.population(jax.random.key(3), 1, 0.25, noise=law)
    two = tj.population(jax.random.key(3), 1, 0.5, noise=law)
    moved = alone(params, one)[0] - base, alone(params, two)[0] - base
    np.testing.assert_allclose(moved[1], 2 * moved[0], atol=1e-6)
    assert len(experts) == 21


@every_law
def test_antithetic_pairs_are_mirror_images(law):
    zeros = {"a": jnp.zeros((16, 3)), "b": jnp.zeros((5,))}
    if law.scale == "relative":
        zeros = jax.tree.map(lambda x: x + 1, zeros)
    experts = population(law, num=6, antithetic=True)
    base = np.asarray(models.flat(zeros))
    moved = alone(zeros, experts) - base
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


@every_law
def test_ensembles_and_merges_use_the_noise_that_was_scored(law):
    params, experts = models.params(), population(law)[:4]
    expected = alone(params, experts)
    predict = tj.ensemble(models.flat, params, experts, combine=lambda rows: rows)
    np.testing.assert_array_equal(predict(None), expected)
    merged = np.asarray(models.flat(tj.merge(params, experts)))
    wide = np.r_[0:16, 53:69]  # all but the leaf whose steps are rounded to bfloat16
    np.testing.assert_allclose(merged[wide], expected.astype(np.float64).mean(0)[wide], atol=2e-6)


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
    assert temporaries(2000, 4) == temporaries(20, 4)
    assert temporaries(2000, 4) < 16 * size < 2000 * size
    assert temporaries(100, 1) < temporaries(100, 16)
