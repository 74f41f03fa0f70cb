"""σ as the norm of a step: each kind of leaf against the norm of what is drawn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import scales as scales_of
from thicket_jax.experts.noise import Noise
from thicket_jax.tasks import task

PARAMS = {
    "dense": {"kernel": jnp.zeros((96, 32)), "bias": jnp.zeros(32)},
    "embed": jnp.zeros((50, 64)),
    "out": jnp.zeros((24, 96)),
}


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
