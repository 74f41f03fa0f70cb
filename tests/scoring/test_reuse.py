"""A scorer that is called again: what it compiles, what it depends on, what it lets go."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kept_programs import kept_programs
from linear import BATCH, PARAMS, per_item, population

import thicket_jax as tj
from thicket_jax.errors import ArgumentError
from thicket_jax.mapping import programs


@pytest.fixture(scope="module")
def scorer():
    return tj.Scorer(per_item, PARAMS, tj.gaussian(), BATCH, block_size=2)


def test_other_populations_batches_and_parameters_are_the_same_program(scorer):
    scorer(population())
    before = kept_programs()
    other = tj.population(jax.random.key(5), 31, (0.2, 0.3), antithetic=False)
    moved = {"x": np.asarray(BATCH["x"]) * np.float32(2)}
    theta = {"w": PARAMS["w"] + 1}
    for found, params, batch in (
        (scorer(other), PARAMS, BATCH),
        (scorer.on(moved)(other), PARAMS, moved),
        (scorer.at(theta)(other), theta, BATCH),
        (scorer.at(theta).on(moved)(other), theta, moved),
    ):
        wanted = np.stack([np.asarray(per_item(tj.perturb(params, e), batch)) for e in other])
        np.testing.assert_allclose(found.items, wanted, atol=1e-5)
    assert kept_programs() <= before


def test_it_is_what_score_gives(scorer):
    experts = population(20)
    again = tj.score(per_item, PARAMS, experts, BATCH, block_size=2)
    np.testing.assert_array_equal(scorer(experts).items, again.items)
    from_population = tj.Scorer(per_item, PARAMS, experts, BATCH, block_size=2)
    np.testing.assert_array_equal(from_population(experts).items, again.items)


def test_relative_scales_are_those_of_the_parameters_at_hand():
    law = tj.gaussian(scale="relative")
    scorer = tj.Scorer(per_item, PARAMS, law, BATCH, block_size=2)
    experts, theta = tj.population(jax.random.key(0), 3, 0.1, noise=law), {"w": 5 * PARAMS["w"]}
    wanted = np.stack([np.asarray(per_item(tj.perturb(theta, e), BATCH)) for e in experts])
    np.testing.assert_allclose(scorer.at(theta)(experts).items, wanted, atol=1e-4)


def test_points_of_a_plane_run_under_the_same_scorer(scorer):
    experts = population(2)
    plane = tj.expert_plane(PARAMS, experts[0], experts[1])
    found = scorer(plane.points(np.array([[1.0, 0.0], [0.0, 1.0]])))
    np.testing.assert_allclose(found.items, scorer(experts).items, atol=1e-6)


def test_another_law_and_no_population_are_refused(scorer):
    with pytest.raises(ArgumentError, match="make a scorer for each law"):
        scorer(tj.population(jax.random.key(0), 4, 0.1, noise=tj.rademacher()))
    with pytest.raises(ArgumentError, match="must be a Population"):
        scorer(PARAMS)


def test_a_sweep_over_the_number_of_experts_compiles_once():
    def score_fn(params, batch):
        return jnp.cos(per_item(params, batch))

    blocks = set()
    scorer = tj.Scorer(score_fn, PARAMS, tj.gaussian(), BATCH)
    for num in (3, 50, 400):
        experts = population(num)
        tj.score(score_fn, PARAMS, experts, BATCH)
        blocks.add(scorer.expert_map.block(experts))
    made = [key for key in kept_programs() if key[0].owns(score_fn)]
    assert len(blocks) == 1 and len(made) <= 2  # that of one expert, by which the block was chosen


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_default_matmul_precision", "float32"), ("jax_debug_nans", True)],
)
def test_settings_of_jax_are_part_of_what_a_program_is(scorer, setting, value):
    scorer(population())
    before, old = kept_programs(), getattr(jax.config, setting)
    try:
        jax.config.update(setting, value)
        scorer(population())
        assert len(kept_programs() - before) == 1
    finally:
        jax.config.update(setting, old)
    scorer(population())
    assert len(kept_programs() - before) == 1


def test_a_function_that_is_gone_frees_what_it_closed_over_and_its_programs():
    gc.collect()  # what other tests left
    held, before = [], kept_programs()

    def once(value):
        large = jnp.full(250_000, value)
        held.append(weakref.ref(large))
        tj.score(
            lambda p, b: b["x"] @ p["w"] + large[:1], PARAMS, population(), BATCH, block_size=2
        )

    for i in range(2):
        once(float(i))
    gc.collect()
    assert not any(ref() is not None for ref in held)
    assert kept_programs() <= before


class Model:
    """A model whose score is a method."""

    def __init__(self, shift):
        self.shift = shift

    def score(self, params, batch):
        return per_item(params, batch) + self.shift


def test_a_bound_method_is_its_object_and_another_object_another_program():
    first, second = Model(1.0), Model(2.0)
    experts = population(4)
    plain = tj.score(per_item, PARAMS, experts, BATCH, block_size=2).items
    for model in (first, second, first):
        found = tj.score(model.score, PARAMS, experts, BATCH, block_size=2)
        np.testing.assert_allclose(found.items, plain + model.shift, atol=1e-6)
    mine = [key for key in programs._KEPT if key[0].owns(first.score)]
    assert mine
    del mine, first, model
    gc.collect()
    assert not [key for key in programs._KEPT if not key[0].alive]


def test_a_function_that_has_no_hash_is_told_by_itself():
    class Unhashable:
        __hash__ = None

        def __call__(self, params, batch):
            return per_item(params, batch)

    found = tj.score(Unhashable(), PARAMS, population(4), BATCH, block_size=2)
    assert found.items.shape == (4, 5)


def test_keys_of_another_implementation_are_another_program(scorer):
    experts = tj.population(jax.random.key(0, impl="threefry4x32"), 6, 0.1)
    wanted = np.stack([np.asarray(per_item(tj.perturb(PARAMS, e), BATCH)) for e in experts])
    np.testing.assert_allclose(scorer(experts).items, wanted, atol=1e-6)
