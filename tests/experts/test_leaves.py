"""Leaf paths, which leaves are moved, and what a plan holds of them."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import thicket_jax as tj
from thicket_jax.errors import ParameterError
from thicket_jax.experts.leaves import leaf_paths, make_plan, path_hash

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


def test_a_plan_is_made_once_for_leaves_of_equal_paths_shapes_and_dtypes():
    law = tj.low_rank(1, axes=(("norm.scale", "b"),))
    first, again = make_plan(small(), law), make_plan(small(), law)
    assert first is again
    assert first.noise == law
    assert first.letters == ("", "rc", "", "rc", "")
    assert first.hashes == tuple((path_hash(path),) for path in first.paths)
    wide = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small())
    assert make_plan(wide, law) == first
    assert make_plan(small(), tj.low_rank(2)) != first
    shapes = jax.eval_shape(small)
    assert make_plan(shapes, law) is first
    assert make_plan({"w": 1.5}, tj.gaussian()).letters == ("",)


def test_dtypes_of_a_plan_are_those_of_jax_as_it_is_set():
    tree = {"w": np.ones(2), "steps": np.arange(2)}
    assert make_plan(tree, tj.gaussian()).skipped == (("steps", "quantised or integer (int32)"),)
    with jax.enable_x64(True):
        skipped = make_plan(tree, tj.gaussian()).skipped
    assert skipped == (("steps", "quantised or integer (int64)"),)
