"""One protocol for every law: what a family of noise promises, whatever its distribution.

A new family needs an entry in LAWS, and nothing else here. A bound is a number of standard errors.
"""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.low_rank import outer
from thicket_jax.experts.noise import FAMILIES, Noise

# Law → (its JSON beside where, scale and version, its text for a leaf of path and of shape).
LAWS = {
    "gaussian": (tj.gaussian(), {}, "path"),
    "rademacher": (tj.rademacher(), {}, "path"),
    "tied_gaussian": (tj.tied_gaussian(), {}, "shape (6, 5)"),
    "rank 1": (tj.low_rank(1), {"rank": 1, "factors": "gaussian"}, "path"),
    "rank 3, signs": (
        tj.low_rank(3, factors="rademacher"),
        {"rank": 3, "factors": "rademacher"},
        "path",
    ),
    "rank 12": (tj.low_rank(12), {"rank": 12, "factors": "gaussian"}, "path"),
}
# Kinds of a leaf's axes, with a shape: scalars, vectors, matrices, embeddings, stacks.
LEAVES = [
    ("", ()),
    ("b", (33,)),
    ("rc", (6, 5)),
    ("ec", (4, 7)),
    ("cr", (2, 9)),
    ("brc", (3, 2, 5)),
]
every_law = pytest.mark.parametrize("name", LAWS)
every_leaf = pytest.mark.parametrize(("kinds", "shape"), LEAVES, ids=str)


MANY = 4000


def compiled(name, leaves, many=False):
    """A compiled `draw` of one key, or of many, for all these leaves: (kinds, shape) → array."""
    epsilon = LAWS[name][0].epsilon

    def draw(key):
        return {leaf: epsilon.draw(key, leaf[1], epsilon.letters(leaf[0])) for leaf in leaves}

    return jax.jit(jax.vmap(draw) if many else draw)


def kinds_of(name):
    """The leaves that a law can tell apart: to one of dense noise all matrices are alike."""
    if LAWS[name][0].factored:
        return LEAVES
    return [leaf for leaf in LEAVES if leaf[0] not in ("ec", "cr")]


@functools.cache
def drawing(name, many=False):
    """`compiled` for every kind of leaf."""
    return compiled(name, kinds_of(name), many)


def test_every_family_has_its_laws_here():
    assert {law.family for law, _, _ in LAWS.values()} == set(FAMILIES)
    assert all(family.name == name for name, family in FAMILIES.items())


@every_law
def test_draws_float32_of_the_shape_and_the_same_again_alone_and_under_vmap(name):
    keys = jax.random.split(jax.random.key(1), MANY)
    each, together = [drawing(name)(key) for key in keys[:3]], drawing(name, many=True)(keys)
    for kinds, shape in kinds_of(name):
        alone = [np.asarray(one[kinds, shape]) for one in each]
        assert all(x.shape == shape and x.dtype == np.float32 for x in alone)
        assert np.isfinite(alone).all()
        np.testing.assert_array_equal(np.asarray(together[kinds, shape])[:3], alone)
        if shape:
            assert (alone[0] != alone[1]).mean() > 0.2


@every_law
def test_mean_is_0_and_variance_is_1(name):
    found = drawing(name, many=True)(jax.random.split(jax.random.key(2), MANY))
    for leaf in (("rc", (6, 5)), ("b", (33,))):
        values = np.asarray(found[leaf], np.float64).reshape(MANY, -1)
        assert abs(values.mean()) * math.sqrt(values.size) < 4.5  # elements are uncorrelated
        squares = np.square(values).mean(1)
        assert abs(squares.mean() - 1) <= 4.5 * squares.std() / math.sqrt(MANY) + 1e-6


@every_law
@every_leaf
def test_letters_are_of_factored_matrices_alone_whichever_side_comes_first(name, kinds, shape):
    law = LAWS[name][0]
    letters = law.epsilon.letters(kinds)
    wanted = kinds.replace("e", "r").replace("cr", "rc")
    matrix = len(kinds.replace("b", "")) > 1
    assert letters == (wanted if law.factored and matrix else "")


@every_law
def test_factors_are_those_whose_product_is_drawn(name):
    epsilon = LAWS[name][0].epsilon
    keys = jax.random.split(jax.random.key(3), 4)
    letters = {leaf: epsilon.letters(leaf[0]) for leaf in LEAVES}
    matrices = {leaf: found for leaf, found in letters.items() if found}
    if not epsilon.factored:
        assert not matrices
        with pytest.raises(TypeError, match="no factors"):
            epsilon.draw_factors(keys, (6, 5), "rc")
        return

    @jax.jit
    def factors(keys):
        found = {x: epsilon.draw_factors(keys, x[1], matrices[x]) for x in matrices}
        return found, {x: outer(left[2], right[2]) for x, (left, right) in found.items()}

    rank, (found, products) = epsilon.options_json()["rank"], factors(keys)
    drawn = drawing(name)(keys[2])
    assert len(matrices) == 4
    for leaf, sides in found.items():
        for side, other in zip(sides, "cr", strict=True):
            pairs = zip(leaf[1], matrices[leaf], strict=True)
            axes = [1 if letter == other else n for n, letter in pairs]
            assert side.shape == (4, rank, *axes) and side.dtype == np.float32
        np.testing.assert_array_equal(drawn[leaf], products[leaf])


@every_law
def test_the_hashed_text_ties_leaves_or_does_not(name):
    law, _, text = LAWS[name]
    assert law.epsilon.hashed("path", (6, 5)) == text
    params = {"a": jnp.ones((6, 5)), "b": jnp.ones((6, 5)), "c": jnp.ones(30)}
    hashes = make_plan(params, law).hashes
    assert len(set(hashes)) == (3 if text == "path" else 2)


@every_law
def test_expected_norms_are_those_of_what_is_drawn(name):
    epsilon, sizes = LAWS[name][0].epsilon, (1, 7, 300)
    leaves = [("rc", (90, 60)), *(("b", (size,)) for size in sizes)]
    found = compiled(name, leaves, many=True)(jax.random.split(jax.random.key(4), 40))
    matrices = np.asarray(found["rc", (90, 60)], np.float64)
    norms = np.linalg.norm(matrices, 2, axis=(1, 2))
    assert epsilon.spectral(90, 60) == pytest.approx(norms.mean(), rel=0.2)
    for size in sizes:
        values = np.asarray(found["b", (size,)])
        assert epsilon.largest(size) == pytest.approx(np.abs(values).max(1).mean(), rel=0.35)
    assert epsilon.largest(0) == 1


@every_law
def test_a_family_is_a_value(name):
    epsilon = LAWS[name][0].epsilon
    again = LAWS[name][0].epsilon
    assert epsilon == again and hash(epsilon) == hash(again)
    assert sum(law.epsilon == epsilon for law, _, _ in LAWS.values()) == 1
    options = {"rank": 1, "factors": "gaussian"} | epsilon.options_json()
    assert FAMILIES[epsilon.name].with_options(**options) == epsilon
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        epsilon.rank = 2


@every_law
@pytest.mark.parametrize("scale", ["absolute", "relative", "modular"])
def test_a_law_survives_json_and_is_a_static_argument(name, scale):
    law, options, _ = LAWS[name]
    law = dataclasses.replace(law, where="kernel$", scale=scale)
    value = {"family": law.family, "where": "kernel$", "scale": scale, "version": 1, **options}
    if law.factored or scale == "modular":
        law = dataclasses.replace(law, axes=(("embed", "ec"),))
        value["axes"] = [["embed", "ec"]]
    if scale == "modular":
        law = dataclasses.replace(law, masses=(("embed", 0.5),))
        value["masses"] = [["embed", 0.5]]
    assert json.dumps(law.to_json()) == json.dumps(value)
    again = Noise.from_json(json.loads(json.dumps(value)))
    assert again == law and hash(again) == hash(law)
    assert len({law, again, LAWS[name][0]}) == 2
    assert law.options_json() == options


@every_law
def test_what_others_ask_of_a_law(name):
    law = LAWS[name][0]
    modular = dataclasses.replace(law, scale="modular")
    assert law.factored == law.epsilon.factored == (law.family == "low_rank")
    assert (law.oriented, modular.oriented) == (False, True)
    assert (law.needs_axes, modular.needs_axes) == (law.factored, True)
    assert not dataclasses.replace(modular, axes=(("w", "rc"),)).needs_axes
    assert law.letters("w", 2) == ("rc" if law.factored else "")
    assert law.letters("w", 1) == "" and law.kinds("w", 3) == "rrc"


def refusal(law, **options):
    with pytest.raises(ArgumentError) as caught:
        dataclasses.replace(law, **options)
    return str(caught.value)


@every_law
def test_options_that_no_law_can_have_are_one_line(name):
    law = LAWS[name][0]
    assert refusal(law, rank=True) == "rank=True must be a whole number of at least 1"
    assert refusal(law, scale="modular", axes=(("w", "rx"),)) == (
        "axes entry ('w', 'rx') must be (leaf path, a letter r, e, c or b for each axis)"
    )
    if law.factored:
        assert refusal(law, rank=0) == "rank=0 must be a whole number of at least 1"
        assert refusal(law, rank=1.5) == "rank=1.5 must be a whole number of at least 1"
        assert refusal(law, factors="cauchy") == (
            "factors='cauchy' is unknown; choose one of: gaussian, rademacher"
        )
        assert dataclasses.replace(law, scale="relative", axes=(("w", "rc"),)).axes
        return
    for options in ({"rank": 2}, {"factors": "rademacher"}, {"rank": 0}):
        text = f"rank and factors belong to noise='low_rank', not to {law.family!r}"
        assert refusal(law, **options) == text
    assert refusal(law, scale="relative", axes=(("w", "rc"),)) == (
        f"axes belong to noise='low_rank' or scale='modular', not to {law.family!r} with "
        "scale='relative'"
    )
