"""Leaf paths, which leaves are moved, by how much, and the recipe that anyone can follow."""

import dataclasses
import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ParameterError
from thicket_jax.experts.leaves import leaf_paths, make_plan, path_hash
from thicket_jax.experts.scales import leaf_scales

KEY = jax.random.key(3)


def expert(law=None, sigma=0.25):
    return tj.population(KEY, 6, sigma, noise=law)[5]


def paths(tree):
    return [path for path, _ in leaf_paths(tree)]


def moved_paths(tree, law=None):
    """The paths of the leaves that `perturb` really changes; shape and dtype never change."""
    after = dict(leaf_paths(tj.perturb(tree, expert(law))))
    found = []
    for path, leaf in leaf_paths(tree):
        assert after[path].shape == np.shape(leaf)
        assert after[path].dtype == leaf.dtype
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            continue
        if not np.array_equal(np.asarray(after[path]), np.asarray(leaf)):
            found.append(path)
    return found


def refusal(error, act):
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Paths.


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: jax.Array
    bias: jax.Array


class Net(nnx.Module):
    """Every kind of variable that must be told apart: kernels, a scale, a count and a key."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs)])
        self.norm = nnx.LayerNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def test_paths_of_plain_containers():
    x = jnp.ones(2)
    assert paths({"b": {"w": x}, "a": [x, (x, x)]}) == ["a.0", "a.1.0", "a.1.1", "b.w"]
    assert paths([x, {"w": x}]) == ["0", "1.w"]
    assert paths(x) == [""]


def test_paths_of_a_dataclass():
    assert paths({"top": Layer(jnp.ones(2), jnp.ones(1))}) == ["top.kernel", "top.bias"]


def test_an_nnx_state_and_its_pure_dict_name_and_move_leaves_alike():
    graph, state = nnx.split(Net(nnx.Rngs(0)))
    expected = ["layers.0.bias", "layers.0.kernel", "norm.bias", "norm.scale"]
    names = ["drop.rngs.count", "drop.rngs.key", *expected]
    assert sorted(paths(state)) == sorted(paths(nnx.to_pure_dict(state))) == sorted(names)
    assert sorted(moved_paths(state)) == expected
    as_state = dict(leaf_paths(tj.perturb(state, expert())))
    as_dict = dict(leaf_paths(tj.perturb(nnx.to_pure_dict(state), expert())))
    for path in expected:
        np.testing.assert_array_equal(as_state[path], as_dict[path])
    model = nnx.merge(graph, tj.perturb(state, expert()))
    np.testing.assert_array_equal(model.norm.scale[...], as_state["norm.scale"])


def test_linen_variables():
    model = nn.Sequential([nn.Dense(3), nn.LayerNorm()])
    variables = model.init(jax.random.key(0), jnp.ones((1, 2)))
    expected = [f"params.layers_{i}.{name}" for i, name in ((0, "bias"), (0, "kernel"))]
    expected += ["params.layers_1.bias", "params.layers_1.scale"]
    assert paths(variables) == expected
    assert moved_paths(variables) == expected


# Which leaves.


def small():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "layers": [
            {"kernel": draw(3, 3), "bias": draw(3)},
            {"kernel": draw(3, 3), "bias": draw(3)},
        ],
        "norm": {"scale": jnp.ones(3)},
    }


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, ["layers.0.bias", "layers.0.kernel", "layers.1.bias", "layers.1.kernel"]),
        ("kernel", ["layers.0.kernel", "layers.1.kernel"]),
        (r"^layers\.1\.", ["layers.1.bias", "layers.1.kernel"]),
        ("kernel$|^norm", ["layers.0.kernel", "layers.1.kernel", "norm.scale"]),
    ],
    ids=str,
)
def test_where_is_searched_in_the_path(where, expected):
    plan = make_plan(small(), tj.gaussian(where=where))
    if where is None:
        expected = [*expected, "norm.scale"]
    assert [p for p, use in zip(plan.paths, plan.chosen, strict=True) if use] == expected
    assert plan.skipped == ()
    hash(plan)


def test_leaves_that_where_leaves_out_are_the_same_bits():
    law = tj.gaussian(where="kernel")
    assert moved_paths(small(), law) == ["layers.0.kernel", "layers.1.kernel"]


def test_quantised_leaves_and_their_scales_stay_and_are_named():
    tree = {
        "attention": {"q": jnp.ones((4, 4), jnp.int8), "q_scale": jnp.ones(4)},
        "mlp": {
            "w": jnp.ones((4, 4), jnp.float8_e4m3fn),
            "w_scale_inv": jnp.ones(1),
            "bias": jnp.ones(4),
        },
        "packed": {
            "qweight": jnp.ones((4, 4), jnp.int32),
            "zero_points": jnp.ones(4),
            "absmax": jnp.ones(4),
        },
        "tiny": {"w": jnp.ones(8, jnp.float8_e5m2)},
        "batch_norm": {"scale": jnp.ones(4), "steps": jnp.asarray(7, jnp.int32)},
        "norm": {"scale": jnp.ones(4)},
        "mask": jnp.asarray([True, False]),
        "phase": jnp.ones(2, jnp.complex64),
        "seed": jax.random.key(0),
        "half": jnp.ones(4, jnp.bfloat16),
    }
    assert moved_paths(tree) == ["batch_norm.scale", "half", "mlp.bias", "norm.scale"]
    assert dict(make_plan(tree, tj.gaussian()).skipped) == {
        "attention.q": "quantised or integer (int8)",
        "attention.q_scale": "scale of a quantised tensor",
        "batch_norm.steps": "quantised or integer (int32)",
        "mask": "not floating (bool)",
        "mlp.w": "quantised or integer (float8_e4m3fn)",
        "mlp.w_scale_inv": "scale of a quantised tensor",
        "packed.absmax": "scale of a quantised tensor",
        "packed.qweight": "quantised or integer (int32)",
        "packed.zero_points": "scale of a quantised tensor",
        "phase": "not floating (complex64)",
        "seed": "not floating (key<fry>)",
        "tiny.w": "quantised or integer (float8_e5m2)",
    }


def test_where_cannot_ask_for_a_quantised_leaf():
    tree = {"w": jnp.ones((4, 4), jnp.int8), "w_scale": jnp.ones(4), "b": jnp.ones(4)}
    text = refusal(ParameterError, lambda: make_plan(tree, tj.gaussian(where="w")))
    assert text == "where='w' matches none of the 1 floating leaves, such as 'b'"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({}, "its 0 leaves are: none"),
        ({"a": jnp.arange(3), "b": True}, "its 2 leaves are: a (int32), b (bool)"),
        (jnp.ones(2, jnp.float8_e4m3fn), "its 1 leaves are:  (float8_e4m3fn)"),
    ],
    ids=["empty", "integers", "float8"],
)
def test_nothing_to_perturb_says_what_was_found(tree, says):
    text = refusal(ParameterError, lambda: tj.perturb(tree, expert()))
    assert text == f"params has no floating leaf to perturb; {says}"


@pytest.mark.parametrize("leaf", ["text", np.asarray("text"), object()], ids=type)
def test_a_leaf_that_is_not_numbers_is_named(leaf):
    tree = {"w": jnp.ones(2), "layer": {"name": leaf}}
    assert "'layer.name'" in refusal(ParameterError, lambda: tj.perturb(tree, expert()))


def test_colliding_path_hashes_are_an_error_that_names_both():
    """Found by hashing w0, w1, w2, ...: two real names with one 32-bit hash."""
    assert path_hash("w116065") == path_hash("w29009")
    tree = {"w116065": jnp.ones(2), "w29009": jnp.ones(2)}
    text = refusal(ParameterError, lambda: tj.perturb(tree, expert()))
    assert "'w116065'" in text
    assert "'w29009'" in text
    assert "rename one" in text


def test_two_leaves_of_one_path_are_an_error():
    tree = {"a": {"b": jnp.ones(2)}, "a.b": jnp.ones(2)}
    assert "rename one" in refusal(ParameterError, lambda: tj.perturb(tree, expert()))


# By how much.


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(0.5, 2, (2**20 + 3,)).astype(np.float32),
        lambda rng: jnp.asarray(rng.normal(0, 1e-3, (7, 9)), jnp.bfloat16),
        lambda rng: np.asarray(1e30, np.float32),
        lambda rng: np.full(3, 1e-30, np.float32),
    ],
    ids=["large", "bfloat16", "scalar-overflow", "underflow"],
)
def test_relative_scale_is_the_leafs_root_mean_square(make):
    leaf = make(np.random.default_rng(0))
    wide = np.asarray(leaf).astype(np.float64)
    expected = np.float32(np.sqrt((wide**2).mean()))
    tree = {"w": leaf, "steps": jnp.arange(3)}
    found = leaf_scales(tree, make_plan(tree, tj.gaussian(scale="relative")))
    assert found[0] == 1
    np.testing.assert_array_almost_equal_nulp(found[1], expected, 1)
    assert found.dtype == np.float32
    assert leaf_scales(tree, make_plan(tree, tj.gaussian())).tolist() == [1, 1]


def test_relative_noise_is_absolute_noise_times_the_scale():
    tree = {"w": jnp.full((33,), -4.0)}
    relative = tj.perturb(tree, expert(tj.rademacher(scale="relative"), 0.25))
    absolute = tj.perturb(tree, expert(tj.rademacher(), 1.0))
    np.testing.assert_array_equal(relative["w"], absolute["w"])
    assert set(np.abs(np.asarray(relative["w"]) + 4)) == {1}


def test_a_leaf_of_zeros_or_of_no_elements_stays_under_a_relative_law():
    tree = {"zero": jnp.zeros(4), "none": jnp.zeros((0, 3)), "w": jnp.ones(4)}
    assert moved_paths(tree, tj.gaussian(scale="relative")) == ["w"]


def test_relative_scale_of_traced_parameters_is_refused_with_the_mend():
    one = expert(tj.gaussian(scale="relative"))
    text = refusal(ArgumentError, lambda: jax.jit(tj.perturb)({"w": jnp.ones(2)}, one))
    assert "close over params" in text


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
