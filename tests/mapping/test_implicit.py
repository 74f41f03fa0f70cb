"""Low-rank noise where parameters are used: equal to the perturbed function, and nothing is built.

The reference is the slow, obvious one: the user's function on `perturb`ed parameters.
"""

import logging

import jax
import jax.numpy as jnp
import language_models
import numpy as np
import pytest
from jax import lax

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ParameterError
from thicket_jax.experts.leaves import leaf_paths, make_plan
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import implicit, interpreter, programs
from thicket_jax.mapping.factored import BuildWarning, Factored
from thicket_jax.mapping.factored_parts import Parts

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


def quick(fn, *arguments):
    """What a function gives, compiled as fast as can be."""
    lowered = jax.jit(fn).lower(*arguments)
    return lowered.compile({"xla_backend_optimization_level": 0})(*arguments)


def outputs(fn, params, *rest, noise, stream=False, num=3):
    """What `fn` gives for experts: perturbed explicitly, and implicitly; and which are built."""
    experts = tj.population(jax.random.key(1), num, 0.1, noise=noise)
    plan, named = make_plan(params, noise), set()
    scales = leaf_scales(params, plan)
    axes = (tj.Population(None, 0, 0, 0, noise),)

    def both(expert):
        plain = fn(apply_noise(params, expert, scales, plan), *rest)
        return plain, implicit.evaluate(
            fn, params, expert, scales, plan, *rest, stream=stream, named=named
        )

    plain, found = quick(jax.vmap(both, in_axes=axes), experts)
    return plain, found, {name.split()[0] for name in named}


def by_hand(fn, params, argument, noise):
    """The same from factors that numpy draws: nothing but the rules is compiled."""
    leaves, moved, named = [], [], set()
    for path, leaf in leaf_paths(params):
        letters, step = noise.letters(path, leaf.ndim), jnp.float32(0.3)
        if not letters:
            moved.append(leaf + step)
            leaves.append(moved[-1])
            continue
        left, right = (
            jnp.asarray(
                RNG.normal(
                    size=(
                        noise.rank,
                        *(1 if x == other else n for n, x in zip(leaf.shape, letters, strict=True)),
                    )
                ),
                jnp.float32,
            )
            for other in "cr"
        )
        parts = Parts(leaf, left, right, step, letters, noise.rounded)
        moved.append(leaf + step * (left * right).sum(0) / np.float32(np.sqrt(noise.rank)))
        leaves.append(Factored(parts, BuildWarning(path, named)))
    tree = jax.tree.unflatten(jax.tree.structure(params), moved)
    both = quick(lambda: (fn(tree, argument), interpreter.call(fn, leaves, params, argument)))
    return *both, {name.split()[0] for name in named}


def assert_close(plain, found):
    for wanted, got in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        assert wanted.dtype == got.dtype
        scale = float(np.abs(np.asarray(wanted, np.float64)).max())
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(scale, 1e-3))


def stacked(params, x):
    def layer(h, leaf):
        return jnp.tanh(h @ leaf["w"] + leaf["b"][None]), h.sum()

    return lax.scan(layer, x, params)


def recurrent(params, x):
    def cell(h, row):
        h = jnp.tanh(row @ params["in"] + h @ params["own"])
        return h, h

    return lax.scan(cell, jnp.zeros((2, 8)), jnp.moveaxis(x, 1, 0))


def convolved(params, x):
    spec = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, params["k"], (1, 1), "SAME", dimension_numbers=spec)
    return jax.nn.relu(y).mean((1, 2)) @ params["out"]


def attended(params, x):
    heads = jnp.tanh(jnp.einsum("BTD,DNH->BTNH", x, params["q"]))
    return jnp.einsum("BTNH,NHD->BTD", heads, params["o"])


def until(params, x):
    def step(state):
        return state[0] + 1, jnp.tanh(state[1] @ params["w"])

    return lax.while_loop(lambda state: state[1].sum() + state[0] < 40, step, (0.0, x))[1]


def branches(params, x):
    w = params["w"]
    return lax.cond(x.sum() > 0, lambda: x @ w, lambda: x @ w.T)


@jax.custom_jvp
def times(w, x):
    return x @ w


times.defjvp(lambda primals, tangents: (times(*primals), times(*tangents)))


@jax.custom_vjp
def times_too(w, x):
    return x @ w


times_too.defvjp(lambda w, x: (x @ w, None), lambda _, g: (g, g))

X, TOKENS = normal(5, 8), jnp.asarray([[1, 2], [3, 10]])
W = {"w": normal(8, 8)}
# Name → (function, parameters, argument, axes of the law): none of these builds a leaf.
CASES = {
    "x @ w.T": (lambda p, x: x @ p["w"].T, {"w": normal(4, 8)}, X, ()),
    "w @ x": (lambda p, x: p["w"] @ x.T, {"w": normal(4, 8)}, X, ()),
    "rows and columns": (
        attended,
        {"q": normal(8, 2, 3), "o": normal(2, 3, 8)},
        normal(2, 3, 8),
        (),
    ),
    "split otherwise": (
        attended,
        {"q": normal(8, 2, 3), "o": normal(2, 3, 8)},
        normal(2, 3, 8),
        (("q", "rcc"), ("o", "rcc")),
    ),
    "embedding": (lambda p, t: p["e"][t] @ p["e"].T, {"e": normal(11, 8)}, TOKENS, ()),
    "take": (lambda p, t: jnp.take(p["e"], t, axis=0), {"e": normal(11, 8)}, TOKENS, ()),
    "convolution": (
        convolved,
        {"k": normal(3, 3, 2, 4), "out": normal(4, 3)},
        normal(2, 5, 5, 2),
        (),
    ),
    "stacked layers": (
        stacked,
        {"w": normal(3, 8, 8), "b": normal(3, 8)},
        X,
        (("b", "bb"), ("w", "brc")),
    ),
    "recurrent": (recurrent, {"in": normal(8, 8), "own": normal(8, 8)}, normal(2, 4, 8), ()),
    "while": (until, W, X, ()),
    "cond": (branches, W, X, ()),
    "remat": (lambda p, x: jax.checkpoint(lambda x: jnp.sin(x @ p["w"]) @ p["w"])(x), W, X, ()),
    "custom derivatives": (lambda p, x: times(p["w"], x) + times_too(p["w"], x), W, X, ()),
    "jit": (lambda p, x: jax.jit(lambda w: jnp.sin(x @ w))(p["w"]), W, X, ()),
    "reshape": (
        lambda p, x: x @ p["w"].reshape(8, 6),
        {"w": normal(8, 2, 3)},
        X,
        (("w", "rcc"),),
    ),
    "a layer of a stack": (
        lambda p, x: x @ p["w"][1] + x @ lax.dynamic_index_in_dim(p["w"], 2, 0, False),
        {"w": normal(3, 8, 4)},
        X,
        (("w", "brc"),),
    ),
    "halves": (lambda p, x: sum(x @ w for w in jnp.split(-p["w"] * 2.0 / 3.0, 2, 1)), W, X, ()),
    "half precision": (lambda p, x: x.astype("bfloat16") @ p["w"].astype("bfloat16"), W, X, ()),
    "vmap inside": (
        lambda p, x: jax.vmap(lambda w, y: y @ w)(p["w"], x),
        {"w": normal(3, 8, 4)},
        normal(3, 5, 8),
        (("w", "brc"),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_that_has_a_rule_builds_nothing(name):
    fn, params, argument, axes = CASES[name]
    rank = 3 if name in ("x @ w.T", "convolution") else 1
    law = tj.low_rank(rank, axes=axes, rounded=name != "half precision")
    plain, found, built = by_hand(fn, params, argument, law)
    if name == "half precision":
        np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in (found, plain)), atol=0.05)
    else:
        assert_close(plain, found)
    assert not built


@pytest.mark.parametrize(("rank", "factors"), [(2, "rademacher"), (10, "gaussian")])
def test_any_rank_and_either_law_of_factors(rank, factors):
    params = {"w": normal(8, 8), "b": normal(8)}
    noise = tj.low_rank(rank, factors=factors)
    plain, found, built = outputs(lambda p, x: x @ p["w"] + p["b"][None], params, X, noise=noise)
    assert_close(plain, found)
    assert not built


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda p, x: x @ jnp.sin(p["w"]), "sin"),
        (lambda p, x: x @ (p["w"] @ p["w"]), "dot_general"),
        (lambda p, x: x[:, :4] @ p["w"].reshape(4, 16), "reshape"),
        (lambda p, x: until({"w": jnp.sin(p["w"]).T}, x), "sin"),
    ],
)
def test_a_leaf_that_has_no_rule_is_built_once_and_equal(fn, why):
    plain, found, built = by_hand(fn, W, X, tj.low_rank(1))
    assert_close(plain, found)
    assert built == {"w"}, why


def test_a_built_leaf_is_named_once_with_its_cost(caplog):
    experts = tj.population(jax.random.key(0), 4, 0.1, noise=tj.low_rank(1))
    with caplog.at_level(logging.WARNING, "thicket_jax"):
        for size in (1, 2):
            tj.score(
                lambda p, x: (x @ jnp.cos(p["named"])).mean(-1),
                {"named": normal(8, 8)},
                experts,
                X,
                block_size=size,
                backend="none",
            )
    (record,) = caplog.records
    assert "'named' [8, 8]" in record.getMessage()
    assert "256 bytes" in record.getMessage()
    assert "'cos'" in record.getMessage()


def test_a_leaf_that_a_loop_needs_whole_is_built_before_it():
    expert = tj.population(jax.random.key(1), 1, 0.1, noise=tj.low_rank(1))[0]

    def fn(p, x):
        return lax.fori_loop(0, 3, lambda _, y: jnp.sin(p["w"]) @ y, x)

    plan, scales = make_plan(W, expert.noise), np.ones(1, np.float32)
    jaxpr = jax.make_jaxpr(lambda e: implicit.evaluate(fn, W, e, scales, plan, X.T))(expert)
    (loop,) = (e for e in jaxpr.eqns if "sin" in str(e.params))
    inside = [e.primitive.name for e in loop.params["jaxpr"].eqns]
    assert inside.count("dot_general") == 1  # the product, and no thin ones
    assert "mul" not in inside  # W's step is added outside


def test_a_stack_that_a_loop_needs_whole_is_built_before_it():
    params = {"w": tj.Stack(jnp.ones((2, 4, 4)))}
    expert = tj.population(jax.random.key(1), 1, 0.1, noise=tj.low_rank(1))[0]

    def fn(p, x):
        return lax.fori_loop(0, 3, lambda _, y: jnp.sin(p["w"].tree.swapaxes(1, 2))[0] @ y, x)

    plan, scales = make_plan(params, expert.noise), np.ones(2, np.float32)
    x = jnp.ones((4, 1))
    jaxpr = jax.make_jaxpr(lambda e: implicit.evaluate(fn, params, e, scales, plan, x))(expert)
    (loop,) = (e for e in jaxpr.eqns if "sin" in str(e.params))
    assert "mul" not in [e.primitive.name for e in loop.params["jaxpr"].eqns]


def test_models_of_the_libraries():
    """An NNX multilayer perceptron and a Linen transformer."""
    from flax import linen, nnx

    class Perceptron(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)))

    class Transformer(linen.Module):
        @linen.compact
        def __call__(self, tokens):
            x = linen.Embed(11, 8)(tokens)
            y = linen.LayerNorm()(x)
            x = x + linen.MultiHeadDotProductAttention(num_heads=2)(y, y)
            y = linen.Dense(16)(linen.LayerNorm()(x))
            return linen.Dense(11)(linen.Dense(8)(linen.gelu(y)) + x)

    graph, state = nnx.split(nnx.eval_shape(lambda: Perceptron(nnx.Rngs(0))))
    transformer = Transformer()
    variables = jax.eval_shape(transformer.init, jax.random.key(0), TOKENS)
    state, variables = jax.tree.map(lambda x: normal(*x.shape), (state, variables))
    cases = [
        (lambda p, x: nnx.merge(graph, p)(x), state, X),
        (transformer.apply, variables, TOKENS),
    ]
    for fn, params, argument in cases:
        axes = tj.matrix_axes(fn, params, argument)
        plain, found, built = by_hand(fn, params, argument, tj.low_rank(1, axes=axes))
        assert_close(plain, found)
        assert not built


def test_the_decoder_with_its_cache(tmp_path):
    from thicket_jax.text import decode, pretrained

    model = pretrained.load(language_models.make_checkpoint(tmp_path / "tiny"))
    run = decode.decoder(model.config, 4, "float32")
    # Of its own: after some prompts all three experts write the same.
    tokens = jnp.asarray(np.random.default_rng(1).integers(2, 40, (2, 2, 6)), jnp.int32)
    batch = {  # more prompts than rows: refilled, with drafts
        "draft": jnp.asarray(np.random.default_rng(2).integers(2, 40, (2, 2, 4)), jnp.int32),
        "tokens": tokens,
        "start": jnp.asarray([[0, 2], [1, 6]], jnp.int32),
        "row": jnp.arange(4, dtype=jnp.int32).reshape(2, 2),
        **{name: jnp.asarray(x) for name, x in decode.sampling(0).items()},
    }
    draw = jnp.zeros((), jnp.int32)
    assert tj.matrix_axes(run, model.params, batch, draw) == ()
    noise = tj.low_rank(1, factors="rademacher")
    plain, found, built = outputs(run, model.params, batch, draw, noise=noise)
    np.testing.assert_array_equal(plain["tokens"], found["tokens"])
    assert len(np.unique(np.asarray(plain["tokens"]), axis=0)) > 1  # the experts differ
    assert not built


# Axes.


@pytest.mark.parametrize(
    ("fn", "shapes", "argument", "axes"),
    [
        (lambda p, x: x @ p["w"] @ p["v"].T, {"w": (8, 5), "v": (3, 5)}, X, ()),
        (attended, {"q": (8, 2, 3), "o": (2, 3, 8)}, normal(2, 3, 8), (("q", "rcc"),)),
        (stacked, {"w": (3, 8, 8), "b": (3, 8)}, X, (("b", "bb"), ("w", "brc"))),
        (lambda p, x: x @ p["w"][1] + p["b"][1][None], {"w": (3, 8, 8), "b": (3, 8)}, X,
         (("b", "bb"), ("w", "brc"))),
        (lambda p, x: x @ p["w"].reshape(8, 6), {"w": (8, 2, 3)}, X, (("w", "rcc"),)),
        (convolved, {"k": (3, 3, 2, 4), "out": (4, 3)}, normal(2, 5, 5, 2), ()),
        (lambda p, x: jax.vmap(lambda w: x @ w)(p["w"]), {"w": (3, 8, 4)}, X, (("w", "rcr"),)),
        (lambda p, x: x @ p["w"] + p["b"], {"w": (8, 5), "b": (5, 5)}, X, (("b", "bb"),)),
        (lambda p, t: p["e"][t] @ p["e"].T, {"e": (11, 8)}, TOKENS, ()),
    ],
)  # fmt: skip
def test_axes_are_those_of_the_first_use(fn, shapes, argument, axes):
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    assert tj.matrix_axes(fn, params, argument) == axes


def test_a_stack_has_noise_of_its_own_in_every_layer_and_vectors_have_dense_noise():
    law = tj.low_rank(1, axes=(("w", "brc"), ("b", "bb")))
    params = {"w": jnp.zeros((3, 16, 8)), "b": jnp.zeros((3, 16)), "v": jnp.zeros((16,))}
    params["whole"] = params["w"]  # rows and columns of one matrix, for want of axes
    moved = tj.perturb(params, tj.population(jax.random.key(0), 1, 1.0, noise=law)[0])
    ranks = [np.linalg.matrix_rank(layer) for layer in np.asarray(moved["w"])]
    assert ranks == [1, 1, 1]
    assert np.linalg.matrix_rank(np.asarray(moved["w"]).reshape(3, -1)) == 3
    assert np.linalg.matrix_rank(np.asarray(moved["b"])) == 3
    assert np.linalg.matrix_rank(np.asarray(moved["whole"]).reshape(48, 8)) == 1


# Streaming.


def test_streaming_gives_the_same_bits_and_the_largest_leaf_of_memory():
    params = {f"w{i}": normal(256, 256) for i in range(4)}

    def fn(p, x):
        for name in params:
            x = jnp.tanh(x @ p[name].T)
        return x.mean(-1)

    x, experts = normal(4, 256), tj.population(jax.random.key(0), 3, 0.01)
    found, temporaries = [], []
    for stream in (False, True):
        scores = tj.score(fn, params, experts, x, block_size=1, backend="none", stream=stream)
        found.append(scores.items)
        kept = next(reversed(programs._KEPT.values()))
        temporaries.append(kept.temporary_bytes)
    np.testing.assert_array_equal(found[0], found[1])
    leaf = 256 * 256 * 4
    assert temporaries[0] > 4 * leaf
    assert temporaries[1] < 1.2 * leaf


@pytest.mark.parametrize("fn", [stacked, recurrent], ids=["stacked", "recurrent"])
def test_streaming_through_loops(fn):
    params = {"w": normal(3, 8, 8), "b": normal(3, 8)}
    argument = X
    if fn is recurrent:
        params, argument = {"in": normal(8, 8), "own": normal(8, 8)}, normal(2, 4, 8)
    plain, found, _ = outputs(fn, params, argument, noise=tj.rademacher(), stream=True)
    for wanted, got in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_streaming_to_the_index_of_a_branch():
    params = {"which": jnp.asarray(1.5), "w": normal(8, 8)}

    def fn(p, x):
        which = p["which"].astype("int32")
        return lax.switch(which, [lambda: x @ p["w"], lambda: x @ p["w"].T, lambda: x * 2])

    plain, found, _ = outputs(fn, params, X, noise=tj.rademacher(), stream=True)
    np.testing.assert_array_equal(found, plain)


# Through everything.


def test_low_rank_experts_go_through_scoring_ensembles_and_merging():
    params, x = {"w": normal(8, 16), "v": normal(16, 4)}, np.asarray(X)

    def apply_fn(p, x, of=jnp):
        return of.tanh(x @ p["w"]) @ p["v"]

    def score_fn(p, x, of=jnp):
        return -of.square(apply_fn(p, x, of) - 1).mean(-1)

    experts = tj.population(jax.random.key(0), 20, (0.1, 0.2), noise=tj.low_rank(1))
    scores = tj.score(score_fn, params, experts, X, block_size=3)
    moved = [jax.tree.map(np.asarray, tj.perturb(params, expert)) for expert in experts]
    wanted = np.stack([score_fn(one, x, np) for one in moved])
    np.testing.assert_allclose(scores.items, wanted, rtol=0, atol=1e-5)
    kept = tj.top_k(experts, scores, 4)
    found = tj.ensemble(apply_fn, params, kept, combine=tj.mean, block_size=1)(X)
    moved = [moved[i] for i in np.asarray(kept.ids)]
    each = [apply_fn(one, x, np) for one in moved]
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=0, atol=1e-5)
    merged = np.asarray(tj.merge(params, kept)["w"]) - np.asarray(params["w"])
    steps = [one["w"] - np.asarray(params["w"]) for one in moved]
    np.testing.assert_allclose(merged, np.mean(steps, 0), rtol=0, atol=1e-6)
    assert np.linalg.matrix_rank(merged, tol=1e-5) == 4


def test_no_matrix_of_an_expert_is_built():
    params = {f"w{i}": normal(128, 128) for i in range(4)}

    def fn(p, x):
        for name in params:
            x = jnp.tanh(x @ p[name])
        return x.mean(-1)

    experts = tj.population(jax.random.key(0), 64, 0.01, noise=tj.low_rank(1))
    tj.score(fn, params, experts, normal(2, 128), block_size=64, backend="none")
    kept = next(reversed(programs._KEPT.values()))
    # 64 experts' parameters would be 16 MiB; factors and activations are 1.
    assert kept.temporary_bytes < 2**20 + 2**19


# What cannot be.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tj.low_rank(0), "rank=0 must be a whole number of at least 1"),
        (lambda: tj.low_rank(1.5), r"rank=1\.5 must be a whole number"),
        (lambda: tj.low_rank(1, factors="cauchy"), "factors='cauchy' is unknown; choose one of"),
        (lambda: tj.low_rank(1, axes=(("w", "xy"),)), "axes entry .* must be"),
        (lambda: Noise("gaussian", rank=2), "belong to noise='low_rank'"),
    ],
)
def test_what_cannot_be_a_law_is_one_line(make, says):
    with pytest.raises(ArgumentError, match=says):
        make()


def test_axes_that_do_not_fit_the_parameters_are_one_line():
    for axes, error, says in (
        ((("other", "rc"),), ParameterError, "'other', which params has not"),
        ((("w", "rcc"),), ArgumentError, "'w' are 'rcc', but the leaf has 2 axes"),
    ):
        experts = tj.population(jax.random.key(0), 2, 0.1, noise=tj.low_rank(1, axes=axes))
        with pytest.raises(error, match=says):
            tj.perturb(W, experts[0])


def test_the_law_survives_json():
    law = tj.low_rank(3, factors="rademacher", where="w", axes=(("w", "brc"),))
    assert Noise.from_json(law.to_json()) == law
    assert "rank" not in tj.gaussian().to_json()
