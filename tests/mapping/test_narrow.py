"""Where a low-rank step meets few bits: `rounded` as the perturbed function rounds it, or never.

The reference is always the function of what `tj.perturb` returns. Errors are measured against the
effect of an expert, what it changes in the outputs: at these sigmas a rounded step is far from one
that is not.
"""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import thicket_jax as tj
from thicket_jax.experts import planes
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import implicit

RNG = np.random.default_rng(0)
DTYPES = ("float16", "bfloat16", "float32")
X = jnp.asarray(RNG.integers(-16, 16, (64, 32)) / 8, jnp.float32)  # exact in any dtype
WEIGHTS = 0.3 * RNG.normal(size=(32, 32))
PARAMS = {
    dtype: {"w": jnp.asarray(WEIGHTS, dtype), "b": jnp.asarray(WEIGHTS[0], dtype)}
    for dtype in DTYPES
}
# One law of dense noise stands for all: test_laws.py has the bits of a vector of 16 bits of each.
LAWS = {
    "gaussian": tj.gaussian(scale="relative"),
    "low_rank": tj.low_rank(1),
    "low_rank 9": tj.low_rank(9, factors="rademacher", scale="modular", masses=((".", 10.0),)),
    "unrounded": tj.low_rank(1, rounded=False, scale="relative"),
    "unrounded 9": tj.low_rank(9, factors="rademacher", rounded=False),
}


def wide(x):
    return x.astype(jnp.float32)


def uses(leaves):
    """Outputs in float32 of a matrix and a vector of any dtype; what 16 bits lose is lost there."""
    w = leaves["w"]
    narrow = X if w.dtype == jnp.float32 else X.astype(w.dtype)
    return {
        "product": X @ wide(w),
        "in its dtype": lax.dot(narrow, w.astype(narrow.dtype), preferred_element_type="float32"),
        "8 bits": X @ wide(w.astype(jnp.float8_e4m3fn)),
        "vector": wide(leaves["b"]),
    }


def converted(w):
    """Of a matrix in float32 that the function itself converts to 16 bits."""
    asked = {
        dtype: lax.dot(X.astype(dtype), w.astype(dtype), preferred_element_type="float32")
        for dtype in DTYPES[:2]
    }
    return {**asked, "and back": X @ wide(w.astype("bfloat16"))}


def all_uses(params):
    found = {dtype: uses(leaves) for dtype, leaves in params.items()}
    return {**found, "converted": converted(params["float32"]["w"])}


def kept_apart(params):
    """The same where the function converts W alone, and the step is added to what that gives."""
    base = PARAMS["float32"]["w"]
    step = params["float32"]["w"] - base
    of = dict(zip((*DTYPES[:2], "and back"), (*DTYPES[:2], "bfloat16"), strict=True))
    found = {name: X @ (wide(base.astype(dtype)) + step) for name, dtype in of.items()}
    return {**all_uses(params), "converted": found}


def quick(fn, *arguments):
    return jax.jit(fn).lower(*arguments).compile({"xla_backend_optimization_level": 0})


def prepared(fn, params, law, stream=False):
    """`fn` of one expert without its parameters, compiled; and the expert of a sigma."""
    plan = make_plan(params, law)
    scales = leaf_scales(params, plan)
    experts = tj.population(jax.random.key(1), 2, (1e-3, 1e-4), noise=law)
    named = set()
    run = quick(
        lambda e: implicit.evaluate(fn, params, e, scales, plan, stream=stream, named=named),
        experts[0],
    )
    return run, experts, named


def effect_errors(plain, found, base):
    """Name of an output → root mean square difference, as a share of the expert's effect."""
    errors = {}
    for path, wanted in jax.tree_util.tree_leaves_with_path(plain):
        got, zero = (functools.reduce(lambda t, k: t[k.key], path, t) for t in (found, base))
        rms = lambda x: float(jnp.sqrt(jnp.square(x).mean()))  # noqa: E731
        errors[tuple(k.key for k in path)] = rms(got - wanted) / max(rms(wanted - zero), 1e-30)
    return errors


def kept_whole(law):
    return law.family == "low_rank" and law.rounded


@pytest.fixture(scope="module")
def base():
    return jax.jit(all_uses)(PARAMS)


# Law → whether leaves are perturbed where they are used.
WAYS = {
    "gaussian": (False, True),
    "low_rank": (False, True),
    "low_rank 9": (False,),
    "unrounded": (False,),
    "unrounded 9": (True,),
}


@pytest.mark.parametrize("name", LAWS)
def test_what_is_scored_is_the_function_of_what_perturb_returns(name, base):
    law = LAWS[name]
    # A step that is never rounded is not rounded where the function converts W, either.
    reference = jax.jit(all_uses if law.rounded else kept_apart)
    for stream in WAYS[name]:
        run, experts, named = prepared(all_uses, PARAMS, law, stream)
        built = {x.split()[0] for x in named if x.endswith("is of 16 bits")}
        assert built == ({"float16.w", "bfloat16.w"} if kept_whole(law) and not stream else set())
        for expert in experts:
            plain = reference(tj.perturb(PARAMS, expert))
            for use, error in effect_errors(plain, run(expert), base).items():
                # Factors are rounded to 16 bits where x and W are of them: 3e-3 of themselves.
                assert error < 3e-3, (name, stream, use, float(expert.sigmas), error)


def test_the_two_laws_differ_where_steps_are_small(base):
    """Else the test above could not fail."""
    for sigma, least in ((1e-3, 0.3), (1e-4, 0.8)):
        found = []
        for rounded in (True, False):
            law = tj.low_rank(1, rounded=rounded)
            expert = tj.population(jax.random.key(1), 1, sigma, noise=law)[0]
            moved = tj.perturb(PARAMS, expert)
            assert moved["bfloat16"]["w"].dtype == ("bfloat16" if rounded else "float32")
            assert moved["bfloat16"]["b"].dtype == "bfloat16"
            found.append(jax.jit(lambda w: X @ wide(w))(moved["bfloat16"]["w"]))
        zero = base["bfloat16"]["product"]
        lost, effect = (
            np.sqrt(np.square(x).mean()) for x in (found[0] - found[1], found[1] - zero)
        )
        assert lost > least * effect


def test_loops_branches_and_views_keep_a_step_apart_and_8_bits_build_it(caplog):
    """A matrix of 16 bits that is used in every way: what is built in a loop is not rounded."""

    def fn(params, x):
        w = params["w"]
        rows = -jnp.split(w.T.reshape(32, 4, 8), 2, 1)[1] / 2

        def twice(_, y):
            y = y @ wide(w.astype(jnp.float8_e5m2)) / 8
            return lax.cond(y.sum() > 0, lambda: y @ wide(w), lambda: y @ wide(w.T))

        y = lax.fori_loop(0, 2, twice, x)
        first, _ = lax.scan(lambda y, row: (y, y.sum() * wide(row)[None] @ y.T), x, w)
        return {"loop": y, "scan": first, "views": jnp.einsum("bi,ijk->bjk", x, wide(rows))}

    base = jax.jit(fn)({"w": PARAMS["bfloat16"]["w"]}, X)
    for law in (LAWS["unrounded"], LAWS["low_rank"]):
        params = {"w": PARAMS["bfloat16"]["w"]}
        run, experts, named = prepared(lambda p: fn(p, X), params, law)
        for expert in experts:
            plain = jax.jit(fn)(tj.perturb(params, expert), X)
            for use, error in effect_errors(plain, run(expert), base).items():
                assert error < 3e-3, (law.rounded, use, error)
        assert named == {"w is of 16 bits"} if law.rounded else {"w convert_element_type"}


def test_an_operation_without_a_rule_says_that_it_rounds_and_how_much_moves(caplog):
    params = {"odd": PARAMS["bfloat16"]["w"]}
    experts = tj.population(jax.random.key(0), 4, 1e-4, noise=LAWS["unrounded"])
    with caplog.at_level(logging.WARNING, "thicket_jax"):
        tj.score(lambda p, x: wide(x @ wide(jnp.sin(p["odd"]))).mean(-1), params, experts, X)
    (said,) = [r.getMessage() for r in caplog.records if "'odd'" in r.getMessage()]
    assert "'sin' has no rule" in said and "its step is rounded to bfloat16 there" in said
    moved = tj.perturb(params, experts[0])["odd"].astype("bfloat16") != params["odd"]
    share = float(re.search(r"moves (\S+) %", said)[1]) / 100
    assert abs(share - float(moved.mean())) < 0.02


def score(params, x):
    return jnp.tanh(wide(x @ wide(params["w"]))).mean(-1) + wide(params["b"]).mean()


@pytest.mark.parametrize("num_devices", [1, 8])
def test_scores_ensembles_planes_and_debugging_are_the_function_of_what_perturb_returns(
    num_devices,
):
    params, law = PARAMS["bfloat16"], LAWS["unrounded"]
    experts = tj.population(jax.random.key(0), 4, 1e-3, noise=law)
    how = {"devices": jax.devices()[:num_devices], "block_size": 2}
    reference = jax.jit(score)
    wanted = np.stack([reference(tj.perturb(params, expert), X) for expert in experts])
    effect = np.abs(wanted - np.asarray(reference(params, X))).mean()
    found = tj.score(score, params, experts, X, **how).items
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-2 * effect)
    if num_devices > 1:
        return
    predicted = tj.ensemble(score, params, experts, combine=tj.mean, **how)(X)
    np.testing.assert_allclose(predicted, wanted.mean(0), rtol=0, atol=1e-2 * effect)
    with jax.disable_jit():
        one = tj.score(score, params, experts[:1], X, **how).items
    np.testing.assert_allclose(one, wanted[:1], rtol=0, atol=1e-2 * effect)
    plane = planes.Plane("experts", experts[:2], np.eye(2), ("", ""), np.eye(2), {})
    points = tj.score(score, params, plane.points(np.eye(2)), X, **how).items
    np.testing.assert_allclose(points, wanted[:2], rtol=0, atol=1e-2 * effect)
