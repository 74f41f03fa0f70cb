"""What cannot work is one line of a ThicketError, at every door; objects print as a few lines."""

import copy
import dataclasses
import inspect
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from linear import BATCH, PARAMS, per_item, population

import thicket_jax as tj
from thicket_jax.errors import ArgumentError, ScoreError, ThicketError
from thicket_jax.scoring.scores import of_values
from thicket_jax.search.pipeline import Result
from thicket_jax.selection.rounds import SelectionResult
from thicket_jax.selection.schedules import Round

KEY = jax.random.key(0)
GIVEN = {"params": PARAMS, "batch": BATCH, "population": population(4), "progress": None}
ONE = {"devices": jax.devices()[:1], "block_size": 1}  # a small program


def given(**defaults):
    """`call(**changes)` of a function with arguments that work."""
    function = defaults.pop("function")
    return lambda **changes: function(**{**defaults, **changes})


SEARCH = {"key": KEY, "num": 4, "k": 1, "sigma": 0.1}
POPULATION = {"params": PARAMS, "population": population(4)}
CALLS = {
    "score": given(function=tj.score, score_fn=per_item, batch=BATCH, **POPULATION),
    "Scorer": given(
        function=tj.Scorer, score_fn=per_item, params=PARAMS, law=tj.gaussian(), batch=BATCH
    ),
    "halving": given(
        function=tj.halving, score_fn=per_item, batch=BATCH, k=1, budget=0.9, **POPULATION
    ),
    "race": given(function=tj.race, score_fn=per_item, batch=BATCH, k=1, **POPULATION),
    "randopt": given(
        function=tj.randopt, score_fn=per_item, params=PARAMS, train=BATCH, **SEARCH
    ),
    "calibrate": given(
        function=tj.calibrate_sigma, fn=per_item, params=PARAMS, batch=BATCH, target=0.1, key=KEY
    ),
    "ensemble": given(
        function=tj.ensemble, apply_fn=per_item, params=PARAMS, experts=population(4),
        combine=tj.mean,
    ),
    "population": given(function=tj.population, key=KEY, num=4, sigma=0.1),
    "top_k": given(
        function=tj.top_k, population=population(4), scores=of_values(np.ones(4)), k=1
    ),
    "perturb": given(function=tj.perturb, params=PARAMS, expert=population(1)),
    "merge": given(function=tj.merge, params=PARAMS, experts=population(4)),
}  # fmt: skip
GRADED = given(function=CALLS["score"], grade=lambda outputs: outputs)
TESTED = given(
    function=CALLS["randopt"], predict_fn=per_item, test=BATCH, targets=np.zeros(5), metric="mse",
    combine=tj.mean,
)  # fmt: skip


def refused(call, *arguments, **changes):
    """The one line that a call is refused with."""
    with pytest.raises(ThicketError) as caught:
        call(*arguments, **changes)
    text = str(caught.value)
    assert text and "\n" not in text and len(text) < 600
    return text


# Where batches come in.


@pytest.fixture(scope="module")
def scorer():
    return tj.Scorer(per_item, PARAMS, tj.gaussian(), BATCH)


@pytest.fixture(scope="module")
def doors(scorer):
    """Every way in for a batch: function of a batch → what it is called there."""
    predict = CALLS["ensemble"]()
    return {
        "score": (lambda batch: CALLS["score"](batch=batch), "batch"),
        "graded": (lambda batch: GRADED(batch=batch), "batch"),
        "Scorer": (lambda batch: CALLS["Scorer"](batch=batch), "batch"),
        "on": (lambda batch: scorer.on(batch), "batch"),
        "predict": (predict, "batch"),
        "train": (lambda batch: CALLS["randopt"](train=batch), "train"),
        "test": (lambda batch: TESTED(test=batch), "test"),
        "calibrate": (lambda batch: CALLS["calibrate"](batch=batch), "batch"),
        "halving": (lambda batch: CALLS["halving"](batch=batch), "batch"),
        "race": (lambda batch: CALLS["race"](batch=batch), "batch"),
        "rounds": (lambda batch: CALLS["randopt"](train=batch, select="race"), "train"),
        "axes": (lambda batch: tj.matrix_axes(per_item, PARAMS, batch), "rest"),
    }


def gone():
    array = jnp.ones((5, 3)) + 1
    array.delete()
    return array


NO_NUMBERS = {
    "text": "text",
    "bytes": b"text",
    "list": ["a", "b"],
    "array of text": np.array(["a"]),
    "dates": np.array(["2020"], "datetime64[Y]"),
    "seconds": np.array([1], "timedelta64[s]"),
    "records": np.zeros(5, [("a", float)]),
    "objects": np.array([None]),
    "object": {"x": np.ones(4), "y": object()},
    "set": {"x": {1, 2}},
    "function": {"x": len},
    "wide": np.zeros(5, np.longdouble),
}


def test_a_batch_that_is_no_numbers_is_named_at_every_door(doors):
    for door, name in doors.values():
        for value in NO_NUMBERS.values():
            assert f"{name} leaf " in refused(door, value) or "rest leaf '0" in refused(door, value)
        if name != "rest":
            assert "without values" in refused(door, {"x": jax.ShapeDtypeStruct((5, 3), "float32")})
            assert "was deleted or donated" in refused(door, {"x": gone()})


def test_a_batch_without_items_is_named_at_every_door(doors):
    empty = jax.tree.map(lambda x: x[:0], BATCH)
    for door, name in doors.values():
        if name != "rest":
            assert f"{name} leaf 'x' has no items" in refused(door, empty)


def test_leaves_with_different_leading_axes_are_named_at_every_door(doors):
    for shape in ((4,), (1, 3), (6, 5)):
        batch = {**BATCH, "y": np.zeros(shape, np.float32), "scale": 2.0, "key": KEY}
        for where, (door, name) in doors.items():
            if where not in ("halving", "race", "rounds", "axes"):  # these take leaves whole
                assert f"{name} leaves 'x' [5, 3] and 'y' {list(shape)}" in refused(door, batch)


def test_another_batch_or_other_weights_are_checked_like_the_first(scorer):
    def either(params, batch):
        found = per_item(params, batch)
        return found.mean() if len(batch["x"]) == 3 else found[:4]

    shorter = jax.tree.map(lambda x: x[:4], BATCH)
    other = CALLS["Scorer"](score_fn=either, batch=shorter)
    assert "return [] or [5]" in refused(other.on, BATCH)
    fewer = jax.tree.map(lambda x: x[:3], BATCH)
    assert "one score for the batch of this batch" in refused(other.on, fewer)
    for wrong in ({}, {"v": PARAMS["w"]}, {"w": jnp.ones(4)}, {"w": np.ones(3, int)}, {"w": "x"}):
        assert "params leaf" in refused(scorer.at, wrong)


# What functions return.

OUTPUTS = {
    "tuple": lambda p, b: (per_item(p, b), per_item(p, b)),
    "nothing": lambda p, b: None,
    "text": lambda p, b: "text",
    "without items": lambda p, b: per_item(p, b)[:0],
    "without classes": lambda p, b: per_item(p, b)[:, None][:, :0],
    "key": lambda p, b: b["key"],
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_that_are_none_are_told_before_anything_is_compiled(kind, doors):
    function, batch = OUTPUTS[kind], {**BATCH, "key": KEY}
    refused(CALLS["score"], score_fn=function, batch=batch)
    refused(CALLS["calibrate"], fn=function, batch=batch)
    refused(CALLS["halving"], score_fn=function, batch=batch)
    refused(CALLS["ensemble"](apply_fn=function), batch)
    refused(TESTED, predict_fn=function, test=batch)
    if kind not in ("tuple", "nothing"):
        refused(GRADED, score_fn=function, batch=batch)


def test_grades_without_items_are_refused():
    for wrong in (lambda outputs: outputs[:, :0], lambda outputs: None, lambda outputs: "text"):
        assert "B], one row per expert" in refused(CALLS["score"], grade=wrong, **ONE)


# Options.

WRONG: list = [[], {}, {1}, "nothing", -1, 2.5, object(), np.ones(3), (x for x in ())]
FINE = {  # what another kind of value means, or what has no meaning of its own
    "where": (),
    "sigma": (2.5,),
    "run_dir": ("nothing",),
    "weights": (None,),
    "targets": WRONG,
    "test": WRONG,
    "target": (2.5,),
}


@pytest.mark.parametrize("name", CALLS)
def test_options_of_another_kind_are_refused(name):
    function = inspect.getclosurevars(CALLS[name]).nonlocals["function"]
    for option in inspect.signature(function).parameters:
        if option in ("params", "batch", "train"):
            continue
        for wrong in WRONG:
            several = option == "sigma" and isinstance(wrong, np.ndarray)
            if several or any(wrong is fine for fine in FINE.get(option, ())):
                continue
            refused(CALLS[name], **{option: wrong})


@pytest.mark.parametrize(
    ("call", "change", "found"),
    [
        ("score", {"progress": True}, "progress=True is not a function"),
        ("score", {"devices": 1}, "devices=1 must be a list of devices"),
        ("score", {"devices": ["cpu"]}, "must be a list of devices"),
        ("score", {"grade": True}, "grade=True is not a function"),
        ("score", {"score_fn": None}, "score_fn=None is not a function"),
        ("score", {"stream": 1}, "stream=1 must be True or False"),
        ("randopt", {"predict_fn": 3}, "predict_fn=3 is not a function"),
        ("randopt", {"resume": True}, "pass run_dir="),
        ("randopt", {"num": 0}, "num=0 must be a whole number of at least 1"),
        ("randopt", {"metric": ["mse"]}, "metric=['mse'] is unknown; choose one of: accuracy, mse"),
        ("randopt", {"run_dir": 3}, "run_dir=3 must be a path"),
        ("top_k", {"scores": np.ones(4)}, "scores must be Scores, got ndarray"),
        ("halving", {"k": 5}, "k=5 is larger than the population of 4"),
    ],
)  # fmt: skip
def test_what_nobody_could_use_is_named(call, change, found):
    assert found in refused(CALLS[call], **change)


@pytest.mark.parametrize("call", ["score", "randopt", "halving", "calibrate", "ensemble"])
def test_inside_jit_and_grad(call):
    def value(params):
        CALLS[call](params=params)
        return jax.tree.leaves(params)[0].sum()

    for wrong in (jax.jit(value), jax.grad(value), jax.jit(lambda p: value(PARAMS))):
        assert "is traced: this is called inside jit" in refused(wrong, PARAMS)


def test_top_k_inside_jit():
    scores, experts = of_values(np.ones(4, np.float32)), population(4)
    assert "top_k is called inside jit" in refused(
        jax.jit(lambda s: tj.top_k(experts, s, 1)), scores
    )
    assert "top_k is called inside jit" in refused(
        jax.jit(lambda e: tj.top_k(e, scores, 1)), experts
    )


def test_experts_are_mapped_over_by_their_index():
    experts = population(3)
    found = jax.vmap(lambda i: tj.perturb(PARAMS, experts[i]))(jnp.arange(4))["w"]
    wanted = [tj.perturb(PARAMS, expert)["w"] for expert in experts]
    np.testing.assert_array_equal(found[:3], np.stack(wanted))
    assert np.isnan(found[3]).all()  # out of range: no expert, and no other one's weights


def test_a_search_that_cannot_predict_says_so():
    found = CALLS["randopt"](**ONE)
    assert "this search had no predict_fn" in refused(found.predict, BATCH)


def test_weights_without_values():
    for name in ("perturb", "merge", "score", "randopt"):
        assert "was deleted or donated" in refused(CALLS[name], params={"w": gone()})
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        assert "without values" in refused(CALLS[name], params={"w": shape})


def test_a_module_is_split_first():
    """An Equinox module is a tree with functions among its leaves."""
    module, split = (
        {"w": PARAMS["w"], "activation": jax.nn.relu},
        "eqx.partition(module, eqx.is_array)",
    )
    for name in (
        "score",
        "Scorer",
        "halving",
        "randopt",
        "calibrate",
        "ensemble",
        "perturb",
        "merge",
    ):
        assert split in refused(CALLS[name], params=module)


# Functions and places of any kind.


@dataclasses.dataclass
class Scaled:
    """A function that cannot be hashed, and compares to an array."""

    scale: np.ndarray

    def __eq__(self, other):
        return self.scale == self.scale

    def __call__(self, params, batch):
        return per_item(params, batch) * self.scale[0]


class Mean(Scaled):
    def __call__(self, predictions):
        return predictions.mean(0)


class Square(Scaled):
    def __call__(self, answers, targets):
        return -np.square(answers - targets)


def test_functions_that_cannot_be_hashed_or_compared():
    function, rule, metric = (kind(np.ones(2, np.float32)) for kind in (Scaled, Mean, Square))
    found = tj.randopt(
        function, PARAMS, BATCH, predict_fn=function, test=BATCH, targets=np.zeros(5),
        metric=metric, combine=rule, **SEARCH, **ONE,
    )  # fmt: skip
    assert found.predict(BATCH).shape == (5,)
    CALLS["ensemble"](apply_fn=function, combine=rule, **ONE)
    assert CALLS["calibrate"](fn=function, **ONE) > 0


@pytest.fixture(scope="module")
def rows():
    """Eight items, with their scores."""
    batch = {"x": jnp.arange(24.0, dtype=jnp.float32).reshape(8, 3)}
    return batch, CALLS["score"](batch=batch, **ONE).items


@pytest.mark.parametrize("backend", ["none", "pmap", "shard_map", "one device"])
def test_sharded_batches(backend, rows):
    batch, wanted = rows
    mesh = Mesh(np.asarray(jax.devices()), ("items",))
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("items")))
    options = ONE if backend == "one device" else {"backend": backend, "block_size": 1}
    ready = CALLS["Scorer"](batch=sharded, **options)
    found = ready(population(4))
    np.testing.assert_allclose(found.items, wanted, rtol=1e-5)
    places = {len(x.sharding.device_set) for x in jax.tree.leaves(ready.expert_map.data)}
    assert places == {1 if backend == "one device" else 8}
    spread = not jax.tree.leaves(ready.expert_map.data)[0].is_fully_replicated
    assert spread == (backend == "none")


def test_parameters_in_a_host_s_memory():
    pinned = SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
    params, batch = jax.device_put((PARAMS, BATCH), pinned)
    assert params["w"].sharding.memory_kind == "pinned_host"
    one = population(1)
    np.testing.assert_array_equal(tj.perturb(params, one)["w"], tj.perturb(PARAMS, one)["w"])
    np.testing.assert_array_equal(tj.merge(params, one)["w"], tj.merge(PARAMS, one)["w"])
    assert tj.matrix_axes(per_item, params, batch) == ()
    assert len(CALLS["halving"](params=params, batch=batch, **ONE).experts) == 1


def test_an_operation_that_jax_cannot_map_is_run_expert_by_expert(caplog):
    experts = {"w": jnp.ones((2, 3, 4))}

    def score_fn(params, batch):
        sizes = jnp.array([2, 3], jnp.int32)
        return jax.lax.ragged_dot(batch["x"], params["w"], sizes).sum(-1)

    with caplog.at_level(logging.WARNING, "thicket_jax"):
        found = CALLS["score"](score_fn=score_fn, params=experts, backend="none")
    assert "experts are run one by one" in caplog.text
    wanted = score_fn(tj.perturb(experts, population(4)[1]), BATCH)
    np.testing.assert_allclose(found.items[1], wanted, rtol=1e-5)
    text = refused(CALLS["score"], score_fn=score_fn, params=experts, block_size=2, backend="none")
    assert "cannot map over experts" in text and "use block_size=1 or 'auto'" in text


def test_jit_disabled_and_nans_looked_for():
    """One expert after another, as any function in Python; a NaN is an expert that failed."""
    experts = tj.population(KEY, 2, 0.1, noise=tj.rademacher(), antithetic=True)
    given, seen = (jnp.zeros(()), experts, jnp.ones(3)), []

    def score_fn(weight, batch):
        seen.append(isinstance(weight, jax.core.Tracer))
        return jnp.log(weight) * batch  # NaN where the weight went below zero

    wanted = tj.score(score_fn, *given, **ONE)
    assert sorted(wanted.failed.tolist()) == [False, True]
    with jax.debug_nans(True), jax.debug_infs(True):
        found = tj.score(score_fn, *given, **ONE)
    np.testing.assert_array_equal(found.items, wanted.items)
    seen.clear()
    with jax.disable_jit():
        ways = [tj.score(score_fn, *given)]
        assert seen[-2:] == [False] * 2
        ways.append(tj.score(score_fn, *given, grade=lambda outputs: outputs))
        ways.append(tj.Scorer(score_fn, *given).on(given[2])(experts))
        predict = tj.ensemble(score_fn, *given[:2], combine=tj.mean)
        np.testing.assert_allclose(predict(given[2]), np.nanmean(wanted.items, 0), rtol=1e-5)
        for found in ways:
            np.testing.assert_allclose(found.items, wanted.items, rtol=1e-5)
        with jax.debug_nans(True), pytest.raises(ScoreError, match="the expert at position ."):
            tj.score(score_fn, *given)


# Records.

DAMAGE = [KeyError, None, "x", [], {}, -1, 1.5, 2**40, True, [None], [[1], [2]], [1.5] * 3]
DAMAGE += [float("nan"), float("inf"), "Infinity"]


def places(value, at=()):
    """Every place in a JSON value; of lists the first two entries."""
    yield at
    for key in (
        value
        if isinstance(value, dict)
        else range(min(2, len(value)))
        if isinstance(value, list)
        else ()
    ):
        yield from places(value[key], (*at, key))


def damaged(value, at, new):
    """A JSON value with another one in one place, or without it."""
    if not at:
        return new
    value = copy.deepcopy(value)
    node = value
    for key in at[:-1]:
        node = node[key]
    if new is KeyError:
        del node[at[-1]]
    else:
        node[at[-1]] = new
    return value


def test_the_json_of_a_population_is_checked_in_every_place():
    """It is refused in one line, or is a population that says the same when it is written."""
    good = population(3).to_json()
    assert tj.Population.from_json(good).to_json() == good
    read = 0
    for at in places(good):
        if at[:1] == ("noise",) and len(at) > 1:  # see the laws' own tests
            continue
        for new in DAMAGE:
            if not at and new is KeyError:
                continue
            value = damaged(good, at, new)
            try:
                found = tj.Population.from_json(value).to_json()
            except ThicketError as error:
                assert "\n" not in str(error) and len(str(error)) < 300
                continue
            read += 1
            for name in ("prng", "key", "ids", "signs"):
                assert found[name] == value[name]
            np.testing.assert_allclose(found["sigmas"], value["sigmas"], rtol=1e-6)
    assert 0 < read < 20


def test_objects_print_as_three_lines():
    law = tj.low_rank(4, axes=[(f"layers.{i}.attention.kernel", "rcc") for i in range(200)])
    experts = tj.population(KEY, 500, np.linspace(0.1, 0.2, 500), noise=law)
    scores = of_values(np.ones(500, np.float32), np.ones((500, 9), np.float32))
    steps = tuple(Round(500, i, i + 1) for i in range(64))
    raced = SelectionResult(experts[:5], scores, steps, np.arange(64), 32000, 1.0)
    table = {"base": {"train": 0.1}, "best": {"train": 0.2}}
    found = Result(experts, scores, experts[:5], len, table, None)
    marks = {f"expert {i}": (0.1, 0.2) for i in range(50)}
    plane = tj.Plane("random", experts[:2], np.eye(2), ("one", "two"), np.eye(2), marks)
    for shown in (experts, scores, raced, plane, found):
        assert len(repr(shown).splitlines()) == 3 and len(repr(shown)) < 500
    assert len(repr(experts[3]).splitlines()) == 3
    found = []
    jax.eval_shape(lambda e: found.append(repr(e)), experts)
    assert found[0].startswith("Population(traced, ") and len(found[0]) < 500
    with pytest.raises(ArgumentError) as caught:
        CALLS["Scorer"]()(experts)
    assert len(str(caught.value)) < 600
