"""σ relative to a leaf, or as the norm of its step: against what is there, and what is drawn."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import scales as scales_of
from thicket_jax.experts.laws import Dense
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.low_rank import LowRank
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.tasks import task

PARAMS = {
    "dense": {"kernel": jnp.zeros((96, 32)), "bias": jnp.zeros(32)},
    "embed": jnp.zeros((50, 64)),
    "out": jnp.zeros((24, 96)),
}


def one(law, sigma):
    return tj.population(jax.random.key(3), 6, sigma, noise=law)[5]


# Relative to a leaf's root mean square.


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
    relative = tj.perturb(tree, one(tj.rademacher(scale="relative"), 0.25))
    absolute = tj.perturb(tree, one(tj.rademacher(), 1.0))
    np.testing.assert_array_equal(relative["w"], absolute["w"])
    assert set(np.abs(np.asarray(relative["w"]) + 4)) == {1}


def test_a_leaf_of_zeros_or_of_no_elements_stays_under_a_relative_law():
    tree = {"zero": jnp.zeros(4), "none": jnp.zeros((0, 3)), "w": jnp.ones(4)}
    moved = tj.perturb(tree, one(tj.gaussian(scale="relative"), 0.25))
    assert not moved["zero"].any() and moved["none"].shape == (0, 3)
    assert (moved["w"] != 1).all()


def test_relative_scale_of_traced_parameters_is_refused_with_the_mend():
    with pytest.raises(ArgumentError, match="close over params"):
        jax.jit(tj.perturb)({"w": jnp.ones(2)}, one(tj.gaussian(scale="relative"), 0.25))


# Modular.


def steps(noise, sigma=0.5, num=4):
    experts = tj.population(jax.random.key(0), num, sigma, noise=noise)
    return [jax.tree.map(np.asarray, tj.perturb(PARAMS, expert)) for expert in experts]


def spectral(matrix, rows, columns):
    return np.sqrt(rows / columns) * np.linalg.norm(matrix.astype(np.float64), 2)


@pytest.mark.parametrize(
    ("make", "exact"),
    [
        (tj.gaussian, 0.08),
        (tj.rademacher, 0.08),
        (lambda **o: tj.low_rank(1, **o), 0.2),
        (lambda **o: tj.low_rank(8, **o), 0.2),
    ],
    ids=["gaussian", "rademacher", "rank 1", "rank 8"],
)
def test_every_leaf_moves_by_sigma_in_its_own_norm(make, exact):
    noise = make(scale="modular", axes=(("embed", "ec"), ("out", "cr")))
    moved = steps(noise)
    kernels = [spectral(p["dense"]["kernel"], 96, 32) for p in moved]
    outs = [spectral(p["out"], 96, 24) for p in moved]
    biases = [np.abs(p["dense"]["bias"]).max() for p in moved]
    rows = [np.sqrt(np.square(p["embed"]).mean()) for p in moved]
    for found, within in ((kernels, exact), (outs, exact), (rows, 0.15), (biases, 0.25)):
        assert np.mean(found) == pytest.approx(0.5, rel=within)


def test_expected_norms_against_simulation():
    rng = np.random.default_rng(0)
    for size in (1, 7, 300):
        drawn = np.abs(rng.normal(size=(4000, size))).max(1).mean()
        assert tj.gaussian().epsilon.largest(size) == pytest.approx(drawn, rel=0.03)
    for rank in (1, 4, 40, 400):
        noise = tj.low_rank(rank)
        a, b = rng.normal(size=(8, 90, rank)), rng.normal(size=(8, 60, rank))
        norms = np.linalg.norm(a @ b.transpose(0, 2, 1) / np.sqrt(rank), 2, axis=(1, 2))
        assert noise.epsilon.spectral(90, 60) == pytest.approx(norms.mean(), rel=0.11)


@pytest.mark.parametrize("factors", ["gaussian", "rademacher"])
def test_the_docstring_states_how_far_below_the_edge_norms_are(factors):
    """The stated shares, to 0.6 %, by as many matrices as tell them to 0.2 %."""
    words = " ".join(LowRank.spectral.__doc__.split()).partition(f"{factors} ")[2]
    stated = re.findall(r"([\d.]+) % at rank (\d+)", words)[:3]
    rng = np.random.default_rng(1)
    assert [rank for _, rank in stated] == ["2", "4", "40"]
    for share, rank in stated:
        r = int(rank)
        a, b = rng.normal(size=(2000, 90, r)), rng.normal(size=(2000, 60, r))
        if factors == "rademacher":
            a, b = np.sign(a), np.sign(b)
        # A Bᵀ has the norm of the product of the square roots of both Gram matrices.
        left = np.linalg.cholesky(a.mT @ a + 1e-9 * np.eye(r))
        right = np.linalg.cholesky(b.mT @ b + 1e-9 * np.eye(r))
        core = left.mT @ right / np.sqrt(r)
        norm = np.sqrt(np.linalg.eigvalsh(core.mT @ core)[:, -1]).mean()
        edge = tj.low_rank(r, factors=factors).epsilon.spectral(90, 60)
        assert 100 * (1 - norm / edge) == pytest.approx(float(share), abs=0.6)


def test_the_docstring_of_dense_laws_states_how_far_below_the_limit_norms_are():
    (stated,) = re.findall(r"90 × 60 by ([\d.]+) %", Dense.spectral.__doc__)
    rng, draws = np.random.default_rng(1), []
    for _ in range(150):
        x = rng.normal(size=(90, 60))
        draws.append(np.sqrt(np.linalg.eigvalsh(x.T @ x)[-1]))
    share = 100 * (1 - np.mean(draws) / tj.gaussian().epsilon.spectral(90, 60))
    assert share == pytest.approx(float(stated), abs=0.6)


def test_stacks_are_matrices_of_their_own():
    noise = tj.gaussian(scale="modular", axes=(("w", "brc"), ("b", "bb")))
    assert scales_of.factor(noise, "w", (5, 96, 32)) == scales_of.factor(noise, "dense", (96, 32))
    assert scales_of.factor(noise, "b", (5, 32)) == scales_of.factor(noise, "bias", (160,))


def test_masses_are_factors_of_the_first_expression_that_is_found():
    noise = tj.gaussian(scale="modular", masses=(("embed", 0.5), ("e", 2)))
    plain = tj.gaussian(scale="modular")
    for path, factor in (("embed", 0.5), ("dense.kernel", 2), ("out", 1)):
        ratio = scales_of.factor(noise, path, (8, 8)) / scales_of.factor(plain, path, (8, 8))
        assert ratio == pytest.approx(factor)


def test_the_search_finds_the_axes_and_their_sides():
    def score(params, tokens):
        h = params["embed"][tokens] @ params["out"].T
        return h.mean((-1, -2)) + params["dense"]["bias"].sum()

    params = {**PARAMS, "out": jnp.zeros((24, 64))}
    found = tj.randopt(
        score, params, jnp.asarray([[1, 2], [3, 4]]), key=jax.random.key(0), num=4, k=1,
        sigma=0.1, noise=tj.gaussian(scale="modular"),
    )  # fmt: skip
    law = found.population.noise
    assert dict(law.axes) == {"embed": "ec", "out": "cr"}
    assert Noise.from_json(law.to_json()) == law
    assert tj.matrix_axes(score, params, jnp.asarray([[1, 2]])) == ()


@pytest.mark.parametrize(
    ("text", "masses"),
    [
        (None, ()),
        ("embed=0.5", (("embed", 0.5),)),
        ("w{1,2}=3,(?<=x)b=1e-3", (("w{1,2}", 3.0), ("(?<=x)b", 1e-3))),
    ],
)
def test_masses_as_words_are_a_law_that_json_holds(text, masses):
    law = task.Options(scale="modular", masses=text).law()
    assert law == tj.gaussian(scale="modular", masses=masses)
    stored = json.loads(json.dumps(law.to_json()))
    assert Noise.from_json(stored) == law


@pytest.mark.parametrize("text", ["embed", "embed=", "=2", "a=b", "", "a=1,", "a=1,,b=2", "a=1,b"])
def test_masses_that_are_none_are_one_line(text):
    with pytest.raises(ArgumentError, match="--masses .* must be EXPRESSION=FACTOR"):
        task.Options(scale="modular", masses=text).law()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"masses": (("a", 1.0),)}, "masses belong to scale='modular'"),
        ({"scale": "modular", "masses": (("a", -1.0),)}, "masses entry .* positive number"),
        ({"scale": "modular", "masses": (("a", "1"),)}, "masses entry .* positive number"),
        ({"scale": "modular", "masses": (("a", np.inf),)}, "masses entry .* positive number"),
        ({"scale": "modular", "masses": (("(", 1.0),)}, "masses='\\(' is not a regular expression"),
        ({"axes": (("a", "rc"),)}, "axes belong to noise='low_rank' or scale='modular'"),
    ],
)
def test_wrong_options_are_one_line(options, says):
    with pytest.raises(ArgumentError, match=says):
        tj.gaussian(**options)
