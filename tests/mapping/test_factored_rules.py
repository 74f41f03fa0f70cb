"""Every rule against the function of `perturb`ed parameters: all dtypes, ranks and modes.

The ranks cross those at which code paths change: 4 (thin products as sums) and 8 (a loop over the
terms of what is built).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import thicket_jax as tj
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import factored_rules, implicit

HALVES = ("float16", "bfloat16")
FLOATS = (*HALVES, "float32")
WHOLE = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32")
DTYPES = (*WHOLE, "float8_e4m3fn", "float8_e5m2", *FLOATS, "complex64")
RNG = np.random.default_rng(0)


def values(dtype, *shape):
    """Values of the whole range of pixels, and otherwise of about 1."""
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return jnp.asarray(RNG.integers(max(info.min, -300), min(info.max, 300), shape), dtype)
    if dtype == "bool":
        return jnp.asarray(RNG.integers(0, 2, shape), bool)
    found = RNG.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        found = found + 1j * RNG.normal(size=shape)
    return jnp.asarray(found, dtype)


def dot(x, w, out=None):
    """As jnp.dot, but of dtypes as they are."""
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=out)


def convolved(x, w):
    spec = ("NHWC", "HWIO", "NHWC")
    kernel = w[: 2 * 3].reshape(2, 1, 3, 4)
    return lax.conv_general_dilated(
        x.reshape(1, 2, 2, 3), kernel, (1, 1), "SAME", dimension_numbers=spec
    )


def viewed(x, w):
    """A product of two halves of w, which went through every view but those below."""
    w = lax.squeeze(jnp.copy(lax.optimization_barrier(-w)).T[None], (0,)).T
    first, second = jnp.split(w, 2, 0)
    at = jnp.asarray(x[0, 0] != x[0, 0], "int32")
    first = lax.dynamic_slice_in_dim(first, at, 3, 0)
    return dot(x[:, :3], first), dot(x[:, 3:], second[0:3])


# Name → function of an array of any dtype [2, 6] and w, floating [6, 4].
RULES = {
    "x @ w": dot,
    "w.T @ x.T": lambda x, w: lax.dot_general(w, x, (((0,), (1,)), ((), ()))),
    "promoted": lambda x, w: x @ w,
    "a batch": lambda x, w: lax.dot_general(
        x.reshape(3, 2, 2), w.reshape(3, 2, 4), (((2,), (1,)), ((0,), (0,)))
    ),
    "a broadcast batch": lambda x, w: jnp.einsum(
        "bi,kij->bkj", x, jnp.broadcast_to(w[None], (3, 6, 4))
    ),
    "rows and columns": lambda x, w: jnp.einsum("bij,ij->b", x[:, :, None] == x[:, None, :4], w),
    "converted": lambda x, w: dot(x, w.astype(x.dtype)),
    "times": lambda x, w: jnp.ones((2, 6)) @ (w * x[0, 0]).astype("complex64"),
    "divided": lambda x, w: jnp.ones((2, 6)) @ (w / (x[0, 0] + 2)).astype("complex64"),
    "convolution": lambda x, w: (
        convolved(x, w.astype(x.dtype))
        if jnp.issubdtype(x.dtype, jnp.inexact)
        else convolved(x.astype(w.dtype), w)
    ),
    "views": viewed,
    "looked up": lambda x, w: w[x[0] % 6] if jnp.issubdtype(x.dtype, jnp.integer) else w[x != x],
}
# Of the outputs that JAX can be asked for; whole numbers and 8 bits are no linear functions of w.
OUTPUTS = ("uint8", "int32", "bool", "float16", "bfloat16", "float32", "complex64", "float8_e5m2")


FEW = ("x @ w", "w.T @ x.T", "convolution", "looked up")


def taken(name, x, leaf):
    """Whether JAX takes this pair of dtypes in this rule; a few rules will do for some."""
    alike = x.dtype.name in (*WHOLE[2:], "bool", "float8_e4m3fn")
    if alike and leaf.dtype != "float32" and name not in FEW:
        return False
    if name == "views":
        return x.dtype in ("uint8", *FLOATS)
    if name == "looked up":
        return jnp.issubdtype(x.dtype, jnp.integer)
    try:
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(RULES[name], x, leaf)
    except ValueError:  # no implicit promotion
        return False
    return True


def both(fn, leaf, rank, *, stream=False, sigma=0.3, rounded=True):
    """What fn gives of θ + σ·ε, built by `perturb`'s arithmetic and implicitly; what was built."""
    params = {"w": leaf}
    noise = tj.low_rank(rank, rounded=rounded)
    expert = tj.population(jax.random.key(1), 1, sigma, noise=noise)[0]
    plan, named = make_plan(params, noise), set()
    scales = leaf_scales(params, plan)

    def run(expert):
        with jax.numpy_dtype_promotion("standard"):
            plain = fn(apply_noise(params, expert, scales, plan)["w"])
            return plain, implicit.evaluate(
                lambda p: fn(p["w"]), params, expert, scales, plan, stream=stream, named=named
            )

    quickly = jax.jit(run).lower(expert).compile({"xla_backend_optimization_level": 0})
    return *quickly(expert), named


def flat(outputs):
    """Outputs that are pairs, under two names."""
    found = {}
    for name, x in outputs.items():
        found |= {f"{name}, {n}": y for n, y in enumerate(x)} if isinstance(x, tuple) else {name: x}
    return found


def primitives(jaxpr):
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                found |= primitives(getattr(inner, "jaxpr", inner))
    return found


def test_every_operation_that_has_a_rule_is_among_these():
    x, w = values("uint8", 2, 6), values("float32", 6, 4)
    with jax.numpy_dtype_promotion("standard"):
        used = [primitives(jax.make_jaxpr(rule)(x, w).jaxpr) for rule in RULES.values()]
    assert factored_rules.RULES.keys() - set().union(*used) <= {"copy", "copy_p"}
    assert {"copy", "copy_p"} & set().union(*used)


def assert_same(plain, found, widened=""):
    """Equal up to the rounding of float32, or of half precision where it is among the operands.

    `widened`: the dtype of a leaf that `perturb` gives in float32.
    """
    for name, wanted in plain.items():
        got = found[name]
        assert wanted.dtype == got.dtype or widened, name
        rounded = [wanted.dtype, got.dtype, *(x for x in HALVES if x in name + widened)]
        bits = [jnp.finfo(x).eps for x in rounded if jnp.issubdtype(x, jnp.inexact)]
        wanted, got = (np.asarray(x).astype(np.complex128) for x in (wanted, got))
        scale = np.abs(wanted).max()
        tolerance = 2 * max([float(x) for x in bits] + [5e-6]) * scale
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance, err_msg=name)


# (dtype of W, rounded, rank) → dtypes of x. A rounded W of 16 bits is built, whatever meets it.
PAIRS = {
    ("float32", True, 5): DTYPES,
    ("float32", True, 1): ("uint8", "float32"),
    ("float32", True, 9): ("uint8", "float32"),
    ("float32", False, 1): ("float16", "bfloat16", "float8_e5m2", "uint8"),
    ("float16", False, 5): (*(x for x in DTYPES if x not in WHOLE), "bool", "uint8", "int32"),
    ("bfloat16", False, 1): DTYPES,
    ("bfloat16", False, 9): ("uint8", "bfloat16"),
}


@pytest.mark.parametrize(("weight", "rounded", "rank"), PAIRS)
def test_every_rule_in_every_pair_of_dtypes_and_at_every_rank(weight, rounded, rank):
    leaf = values(weight, 6, 4)
    arguments = {dtype: values(dtype, 2, 6) for dtype in PAIRS[weight, rounded, rank]}

    def fn(w):
        return {
            f"{name} of {dtype}": rule(x, w)
            for name, rule in RULES.items()
            for dtype, x in arguments.items()
            if taken(name, x, leaf)
        }

    plain, found, _ = both(fn, leaf, rank, rounded=rounded)
    assert_same(*map(flat, (plain, found)), "" if rounded else weight)


@pytest.mark.parametrize("weight", ["float32", "float64"])
def test_pairs_of_64_bits(weight):
    with jax.enable_x64(True):
        leaf = values(weight, 6, 4)
        arguments = {x: values(x, 2, 6) for x in ("int64", "float32", "float64", "complex128")}
        rules = ("x @ w", "converted", "convolution")

        def fn(w):
            return {f"{n} of {x}": RULES[n](a, w) for n in rules for x, a in arguments.items()}

        plain, found, _ = both(fn, leaf, 5)
        assert_same(plain, found)


def test_a_product_that_is_asked_for_in_another_dtype():
    leaf, x = values("float32", 6, 4), values("float32", 2, 6)
    plain, found, _ = both(lambda w: {out: dot(x, w, out) for out in OUTPUTS}, leaf, 5)
    assert_same(plain, found)


@pytest.mark.parametrize("mode", ["fill", "clip", "promise_in_bounds"])
def test_gathers_with_fill_values_and_indices_out_of_bounds(mode):
    table = values("float32", 6, 4)
    at = jnp.asarray([0, 5] if mode == "promise_in_bounds" else [0, 5, 6, -1, -6, 100])

    def fn(w):
        found = {}
        for fill in (None, -1e3, 0.0, np.inf, np.nan) if mode == "fill" else (None,):
            how = {"mode": mode, "fill_value": fill if mode == "fill" else None}
            name = f"{mode} {fill}"
            found[f"rows, {name}"] = w.at[at].get(**how)
            found[f"columns, {name}"] = w.at[:, at].get(**how)
            found[f"elements, {name}"] = w.at[at, at].get(**how)
            found[f"broadcast, {name}"] = jnp.broadcast_to(w[None], (3, 6, 4)).at[at].get(**how)
            found[f"of size 1, {name}"] = w[:1].at[at * 0 + 3].get(**how)
        return found

    plain, found, _ = both(fn, table, 2)
    for name, wanted in plain.items():
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5, err_msg=name)
