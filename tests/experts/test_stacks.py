"""A stack is its slices: the bits, names and records of the same tree with its layers as a list.

Every layer has a stack of its own inside.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.experts.leaves import leaf_rows, make_plan
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping.implicit import evaluate
from thicket_jax.runs.files import fingerprint

RNG = np.random.default_rng(0)
L, E = 3, 2
SOME = r"layers\.[02]\.(w|inner\.1)|out"
LAWS = {
    "gaussian": tj.gaussian(),
    "rademacher": tj.rademacher(scale="relative"),
    "tied": tj.tied_gaussian(),
    "low_rank": tj.low_rank(1),
    "rank 5": tj.low_rank(5, factors="rademacher", scale="relative"),
    "modular": tj.gaussian(scale="modular", masses=((r"layers\.1\.", 2.0),)),
    "some": tj.gaussian(where=SOME),
    "some low_rank": tj.low_rank(1, where=SOME),
}


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32) / np.float32(2)


LIST = {
    "layers": [
        {
            "w": normal(6, 6),
            "b": normal(6),
            "none": normal(0, 4),
            "inner": [{"v": normal(6, 6), "u": normal(6)} for _ in range(E)],
        }
        for _ in range(L)
    ],
    "out": normal(6, 2),
}
STACKED = {
    **LIST,
    "layers": tj.Stack.of([x | {"inner": tj.Stack.of(x["inner"])} for x in LIST["layers"]]),
}
X = normal(4, 6)


def step(x, layer):
    def inner(x, part):
        return x + jnp.tanh(x @ part["v"] + part["u"][None]), None

    x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    if isinstance(layer["inner"], tj.Stack):
        return jax.lax.scan(inner, x, layer["inner"].tree)[0], None
    for part in layer["inner"]:
        x = inner(x, part)[0]
    return x, None


def on_list(params, x):
    for layer in params["layers"]:
        x = step(x, layer)[0]
    return x @ params["out"]


def by_scan(params, x):
    return jax.lax.scan(step, x, params["layers"].tree)[0] @ params["out"]


def by_index(params, x):
    for i in range(L):
        x = step(x, jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"].tree))[0]
    return x @ params["out"]


def by_number(params, x):
    def body(i, x):
        return step(x, jax.tree.map(lambda leaf: leaf[i], params["layers"].tree))[0]

    return jax.lax.fori_loop(0, L, body, x) @ params["out"]


def by_cast(params, x):
    layers = params["layers"].tree
    narrow = jax.tree.map(lambda leaf: leaf.transpose(), layers)
    turned = layers | {"w": narrow["w"].transpose(2, 1, 0), "b": narrow["b"].T}
    return jax.lax.scan(step, x, turned)[0] @ params["out"]


def rows(tree):
    return [(path, np.asarray(leaf)) for path, leaf in leaf_rows(tree)]


def assert_same(one, other):
    for (path, left), (name, right) in zip(rows(one), rows(other), strict=True):
        assert path == name
        assert left.tobytes() == right.tobytes(), path


def test_rows_are_named_and_ordered_as_the_layers_of_a_list():
    assert_same(LIST, STACKED)
    assert fingerprint(LIST) == fingerprint(STACKED)
    assert repr(STACKED["layers"]).startswith("Stack({")


@pytest.mark.parametrize(
    ("law", "dtype"),
    [
        *((law, "float32") for law in ("rademacher", "tied", "rank 5")),
        ("some low_rank", "bfloat16"),
    ],
)
def test_an_expert_of_a_stack_has_the_bits_of_its_layers(law, dtype):
    plain, stacked = (
        jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(dtype)), x) for x in (LIST, STACKED)
    )
    experts = tj.population(jax.random.key(3), 4, 0.1, noise=LAWS[law])
    assert_same(tj.perturb(plain, experts[2]), tj.perturb(stacked, experts[2]))
    if law == "some low_rank":
        assert_same(tj.merge(plain, experts[:2]), tj.merge(stacked, experts[:2]))


@pytest.mark.parametrize("law", LAWS)
def test_a_plan_of_a_stack_says_of_rows_what_it_says_of_a_list(law):
    plain, stacked = make_plan(LIST, LAWS[law]), make_plan(STACKED, LAWS[law])

    def of_rows(plan, tree):
        scales = leaf_scales(tree, plan)
        return {
            path: (plan.hashes[i][n], plan.moving[i][n], plan.letters[i] * plan.moving[i][n],
                   scales[plan.starts[i] + n])
            for i, names in enumerate(plan.rows) for n, path in enumerate(names)
        }  # fmt: skip

    assert of_rows(plain, LIST) == of_rows(stacked, STACKED)
    assert sorted(plain.skipped) == sorted(stacked.skipped)


@pytest.mark.parametrize(
    ("law", "stream"),
    [("gaussian", True), ("some", True), ("rank 5", False), ("some low_rank", False)],
)
def test_every_way_through_a_stack_scores_the_perturbed_list(law, stream):
    """Where leaves are streamed, each law takes two of the ways."""
    noise = LAWS[law]
    expert = tj.population(jax.random.key(3), 4, 0.1, noise=noise)[2]
    wanted = np.asarray(on_list(tj.perturb(LIST, expert), X))
    plan = make_plan(STACKED, noise)
    scales, named = leaf_scales(STACKED, plan), set()

    ways = {"gaussian": (by_index, by_cast), "some": (by_scan, by_number)}

    def every(expert):
        return [
            evaluate(way, STACKED, expert, scales, plan, X, stream=stream, named=named)
            for way in ways.get(law, (by_scan, by_index, by_number, by_cast))
        ]

    compiled = jax.jit(every).lower(expert).compile({"xla_backend_optimization_level": 0})
    for found in compiled(expert):
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=2e-5, atol=2e-5)
    assert not named  # nothing had to be built


def test_axes_of_a_stack_are_those_of_its_layers():
    def turned(params, x):
        def step(x, layer):
            return jnp.tanh(jnp.einsum("bi,ioh->boh", x, layer).reshape(4, 6)), None

        layers = params["layers"]
        if isinstance(layers, tj.Stack):
            return jax.lax.scan(step, x, layers.tree["w"])[0]
        for layer in layers:
            x = step(x, layer["w"])[0]
        return x

    layers = [{"w": normal(6, 2, 3)} for _ in range(L)]
    assert tj.matrix_axes(on_list, LIST, X) == tj.matrix_axes(by_scan, STACKED, X) == ()
    axes = tj.matrix_axes(turned, {"layers": layers}, X)
    assert axes == tuple((f"layers.{n}.w", "rcc") for n in range(L))
    stack = {"layers": tj.Stack.of(layers)}
    assert tj.matrix_axes(turned, stack, X) == axes
    other = (*axes[:2], ("layers.2.w", "ccr"))
    with pytest.raises(tj.ThicketError, match="slices of one Stack"):
        make_plan(stack, tj.low_rank(1, axes=other))


@pytest.mark.parametrize("nested", [False, True])
def test_streaming_a_stack_holds_one_layer(nested):
    params = {"layers": tj.Stack({"w": jnp.zeros((16, 64, 64))})}
    if nested:
        params = {"layers": tj.Stack({"w": tj.Stack(jnp.zeros((4, 4, 64, 64)))})}
    noise = tj.rademacher()
    plan, expert = make_plan(params, noise), tj.population(jax.random.key(0), 1, 0.1, noise=noise)
    scales = leaf_scales(params, plan)

    def scanned(params, x):
        def step(x, w):
            if nested:
                return jax.lax.scan(lambda x, w: (x @ w, None), x, w.tree)[0], None
            return x @ w, None

        return jax.lax.scan(step, x, params["layers"].tree["w"])[0]

    def bytes_of(stream):
        run = jax.jit(
            lambda expert, params: evaluate(
                scanned, params, expert, scales, plan, jnp.ones((1, 64)), stream=stream
            )
        )
        compiled = run.lower(expert[0], params).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * 16 * 64 * 64)

    assert bytes_of(False) >= 1
    assert bytes_of(True) < (7 if nested else 3) / 16  # with a copy of what the inner loop takes


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"a": tj.Stack({"b": tj.Stack(jnp.ones(2))})}, "'a.*.b.*' lies in a Stack, but has no"),
        ({"a": tj.Stack({"b": jnp.ones(())})}, "'a.*.b' lies in a Stack, but has no axis"),
    ],
)
def test_a_stack_that_is_none_is_refused(params, words):
    with pytest.raises(tj.ThicketError, match=re.escape(words)):
        make_plan(params, tj.gaussian())
