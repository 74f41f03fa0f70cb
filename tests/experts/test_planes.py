"""Planes through θ: a point is a recipe, an expert's own point has the expert's bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import planes
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import apply_sum
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping import programs

LAWS = {
    "gaussian": tj.gaussian(),
    "rademacher": tj.rademacher(scale="relative", where="a|big"),
    "tied": tj.tied_gaussian(),
    "low_rank": tj.low_rank(2),
}


def tree(dtype="float32"):
    rng = np.random.default_rng(5)
    return {
        "a": jnp.asarray(rng.normal(size=(8, 6)), dtype),
        "b": jnp.ones(7),
        "c": jnp.ones(7),
        "big": jnp.asarray(rng.normal(size=(70, 60)), dtype),
        "steps": jnp.arange(3),
    }


def same(one, other):
    return all(
        np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("law", LAWS)
def test_an_experts_own_point_has_its_bits_and_the_origin_those_of_the_base(law):
    params = tree("bfloat16" if law in ("gaussian", "tied") else "float32")
    experts = tj.population(jax.random.key(0), 6, (0.1, 0.3), noise=LAWS[law], antithetic=True)
    plane = planes.Plane("experts", experts[[3, 4]], np.eye(2), ("", ""), np.eye(2), {})
    if law == "low_rank":  # what it measures beside is the next test's
        measured = tj.expert_plane(params, experts[3], experts[4])
        assert same(measured.points(np.eye(2)).sigmas, plane.points(np.eye(2)).sigmas)
        assert same(measured.basis.ids, plane.basis.ids) and same(measured.axes, plane.axes)
    points = plane.points([[1, 0], [0, 1], [0, 0], [0.5, -2]])
    scales = leaf_scales(params, make_plan(params, LAWS[law]))
    axes = dataclasses.replace(experts, key=None, ids=0, sigmas=0, signs=0)
    many = jax.jit(jax.vmap(lambda p, t: apply_sum(p, t, scales), in_axes=(None, axes)))
    found = jax.tree.map(np.asarray, many(params, points))
    for row, expert in ((0, experts[3]), (1, experts[4])):
        assert same(jax.tree.map(lambda x, row=row: x[row], found), tj.perturb(params, expert))
    assert same(jax.tree.map(lambda x: x[2], found), params)
    if law == "low_rank":
        alone = jax.jit(apply_sum)(params, points[3], scales)
        assert same(jax.tree.map(lambda x: x[3], found), alone)


def test_points_are_sums_of_steps_and_lengths_are_euclidean():
    params = {k: v for k, v in tree().items() if k != "steps"}
    experts = tj.population(jax.random.key(1), 4, (0.1, 0.2))
    theta = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(params)])

    def step(tree):
        return np.concatenate(
            [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
        ) - (theta)

    steps = np.stack([step(tj.perturb(params, e)) for e in experts])
    np.testing.assert_allclose(
        planes.step_products(params, experts), steps @ steps.T, rtol=1e-3, atol=0.02
    )
    plane = tj.principal_plane(params, experts)
    values, vectors = np.linalg.eigh(steps @ steps.T)
    assert plane.share == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-3)
    places = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -1.2]])
    moved = plane.points(places)
    scales = leaf_scales(params, make_plan(params, experts.noise))
    summed = jax.jit(apply_sum)
    found = np.stack([step(summed(params, moved[i], scales)) for i in range(3)])
    unit = np.sqrt((steps**2).sum(1).mean())
    np.testing.assert_allclose(found @ found.T / unit**2, places @ places.T, atol=2e-3)
    np.testing.assert_allclose(plane.distances(places), np.linalg.norm(found, axis=1), rtol=1e-3)
    # The plane's directions are the first two of the steps, and marks are projections on them.
    principal = vectors[:, ::-1][:, :2].T @ steps
    principal /= np.linalg.norm(principal, axis=1, keepdims=True)
    assert np.abs(found[:2] / unit @ principal.T).max(1) == pytest.approx([1, 1], abs=1e-3)
    marks = np.array([plane.marks[f"rank {k + 1} (projected)"] for k in range(4)])
    np.testing.assert_allclose(marks, steps @ found[:2].T / unit**2, atol=2e-3)
    np.testing.assert_allclose(plane.marks["mean of 4"], marks.mean(0))


def test_one_program_scores_any_grid_alike_however_it_is_spread(monkeypatch):
    params, x = tree(), jnp.asarray(np.random.default_rng(2).normal(size=(9, 6)), jnp.float32)
    experts = tj.population(jax.random.key(0), 20, 0.05)
    plane = tj.random_plane(params, experts)
    assert not set(np.asarray(plane.basis.ids)) & set(np.asarray(experts.ids))
    assert not set(np.asarray(tj.random_plane(params, experts, 1).basis.ids)) & set(
        np.asarray(plane.basis.ids)
    )

    def score(params, x):
        return -jnp.square(x @ params["a"].T).mean(-1)

    compiled = []
    kept = programs._compile
    monkeypatch.setattr(programs, "_compile", lambda *a: compiled.append(a) or kept(*a))
    places = np.random.default_rng(0).normal(size=(21, 2))
    alone = tj.score(score, params, plane.points(places), x, block_size=1, backend="none")
    few = tj.score(score, params, plane.points(places[:4]), x, block_size=1, backend="none")
    assert len(compiled) == 1
    np.testing.assert_array_equal(alone.values[:4], few.values)
    spread = tj.score(score, params, plane.points(places), x, block_size=2)
    np.testing.assert_allclose(spread.values, alone.values, rtol=1e-5)


def test_wrong_planes_are_one_line():
    params = tree()
    experts = tj.population(jax.random.key(0), 4, 0.1, antithetic=True)
    with pytest.raises(ArgumentError, match="A and B have the same noise, so they span no plane"):
        tj.expert_plane(params, experts[0], experts[1])
    with pytest.raises(ArgumentError, match="expected one expert, got 4"):
        tj.expert_plane(params, experts, experts[0])
    with pytest.raises(ArgumentError, match="at least two experts"):
        tj.principal_plane(params, experts[:1])
    with pytest.raises(ArgumentError, match="lie on one line"):
        tj.principal_plane(params, experts[:2])
    with pytest.raises(ArgumentError, match="seed=-1"):
        tj.random_plane(params, experts, -1)
    plane = tj.random_plane(params, experts)
    with pytest.raises(ArgumentError, match="must be finite"):
        plane.points([[0.0, np.nan]])
    points = plane.points([[0.0, 1.0]])
    with pytest.raises(ArgumentError, match="points of a plane.*merge its basis"):
        tj.merge(params, points)
    with pytest.raises(ArgumentError, match="stream=True perturbs single experts"):
        tj.score(lambda p, x: p["b"].sum() + x, params, points, jnp.zeros(()), stream=True)
