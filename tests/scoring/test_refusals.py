"""What cannot work is one line of a ThicketError, and objects print as a few lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import BATCH, PARAMS, per_item, population

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ThicketError

KEY = jax.random.key(0)


def score(**changes):
    given = {"score_fn": per_item, "params": PARAMS, "population": population(4), "batch": BATCH}
    return tj.score(**(given | changes))


def randopt(**changes):
    given = {"score_fn": per_item, "params": PARAMS, "train": BATCH, "key": KEY, "num": 4, "k": 1}
    return tj.randopt(**(given | {"sigma": 0.1} | changes))


def halving(**changes):
    given = {"score_fn": per_item, "params": PARAMS, "population": population(4), "batch": BATCH}
    return tj.halving(**(given | {"k": 1, "budget": 0.9} | changes))


CALLS = {"score": score, "randopt": randopt, "halving": halving}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "value",
    ["text", ["a", "b"], np.array(["a"]), {"x": np.ones(4), "y": object()}, np.array([None])],
    ids=["text", "list", "array", "object", "objects"],
)
def test_a_batch_that_is_no_numbers_is_named(call, value):
    name = "train" if call == "randopt" else "batch"
    with pytest.raises(ArgumentError, match=f"{name} leaf .* is of type"):
        CALLS[call](**{name: value})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"progress": True}, "progress=True is not a function"),
        ({"devices": 1}, "devices=1 must be a list of devices"),
        ({"devices": ["cpu"]}, "must be a list of devices"),
    ],
)
def test_options_of_another_kind_are_named(call, change, found):
    with pytest.raises(ArgumentError, match=found):
        CALLS[call](**change)


@pytest.mark.parametrize(
    ("call", "change", "found"),
    [
        ("score", {"grade": True}, "grade=True is not a function"),
        ("score", {"score_fn": None}, "score_fn=None is not a function"),
        ("randopt", {"predict_fn": 3}, "predict_fn=3 is not a function"),
        ("randopt", {"resume": True}, "pass run_dir="),
        ("randopt", {"num": 0}, "num=0 must be a whole number of at least 1"),
    ],
)
def test_what_nobody_could_use_is_named(call, change, found):
    with pytest.raises(ArgumentError, match=found):
        CALLS[call](**change)


def test_a_batch_without_items_and_scores_that_are_values():
    empty = jax.tree.map(lambda x: x[:0], BATCH)
    for call, name in (("score", "batch"), ("randopt", "train"), ("halving", "batch")):
        with pytest.raises(ThicketError):
            CALLS[call](**{name: empty})
    with pytest.raises(ArgumentError, match="scores must be Scores, got ndarray"):
        tj.top_k(population(4), np.ones(4), 2)
    with pytest.raises(ThicketError, match="predict_fn returned a tuple"):
        tj.ensemble(lambda p, b: (b, b), jnp.ones(2), population(2), combine=tj.mean)(jnp.ones(3))


@pytest.mark.parametrize("call", CALLS)
def test_inside_jit_and_grad(call):
    def value(params):
        CALLS[call](params=params)
        return jax.tree.leaves(params)[0].sum()

    for wrong in (jax.jit(value), jax.grad(value), jax.jit(lambda p: value(PARAMS))):
        with pytest.raises(ArgumentError, match="is traced: this is called inside jit"):
            wrong(PARAMS)


WRONG = {"prng": "x", "key": [1], "noise": 3, "ids": ["a"], "sigmas": [-1.0] * 4, "signs": [0] * 4}


@pytest.mark.parametrize("name", WRONG)
def test_the_json_of_a_population_is_checked_field_by_field(name):
    good = population(4).to_json()
    assert tj.Population.from_json(good).to_json() == good
    for wrong in ({**good, name: WRONG[name]}, {k: v for k, v in good.items() if k != name}):
        with pytest.raises(ArgumentError) as caught:
            tj.Population.from_json(wrong)
        assert "\n" not in str(caught.value)


def test_objects_print_as_three_lines():
    experts = tj.population(KEY, 500, (0.1, 0.2))
    scores = tj.score(per_item, PARAMS, experts, BATCH)
    found = randopt(num=30)
    for shown in (experts, scores, found, halving(population=experts, batch=BATCH)):
        assert len(repr(shown).splitlines()) == 3 and len(repr(shown)) < 500
    assert len(repr(experts[3]).splitlines()) == 3
    shown = []
    jax.eval_shape(lambda e: shown.append(repr(e)), experts)
    assert shown[0].startswith("Population(traced, ")


def test_disabling_jit_runs_one_expert_after_another():
    experts = population(3)
    wanted = tj.score(per_item, PARAMS, experts, BATCH)

    def score_fn(params, batch):
        value = per_item(params, batch)
        seen.append(isinstance(value, jax.core.Tracer))
        return value

    seen = []
    with jax.disable_jit():
        found = tj.score(score_fn, PARAMS, experts, BATCH)
    assert seen[-3:] == [False] * 3
    np.testing.assert_allclose(found.items, wanted.items, rtol=1e-5)
