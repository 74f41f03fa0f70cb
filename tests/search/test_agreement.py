"""Whatever one process is told differently is named, before anything is done together."""

import dataclasses

import jax
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.cli.machine import facts_of
from thicket_jax.cli.options import Machine
from thicket_jax.mapping.placement import Placement, place
from thicket_jax.runs.files import plain_json
from thicket_jax.scoring.metrics import METRICS
from thicket_jax.search import agreement
from thicket_jax.search.problem import Problem, Settings
from thicket_jax.selection.halving import Halving
from thicket_jax.selection.race import Race
from thicket_jax.tasks import registry

OWN = {"process_id", "coordinator", "quiet"}  # what a process may have for itself


def other(value):
    """A value of the same kind that is not `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, 7)
    return "other" if value is None else f"{value}x"


def told(one, two):
    return agreement.disagreements([plain_json(one), plain_json(one), plain_json(two)])


@pytest.mark.parametrize("task", registry.REGISTRY)
def test_every_option_of_every_task_is_compared(task):
    options = registry.module(task).Options()
    one = facts_of(task, options, Machine())
    assert told(one, facts_of(task, dataclasses.replace(options), Machine())) == []
    for field in dataclasses.fields(options):
        changed = dataclasses.replace(options, **{field.name: other(getattr(options, field.name))})
        (phrase,) = told(one, facts_of(task, changed, Machine()))
        assert phrase.startswith(f"options.{field.name} is ") and "in process 2" in phrase


def test_every_option_of_the_machine_and_the_selection_is_compared():
    options, names = registry.module("signals").Options(), set()
    one = facts_of("signals", options, Machine(), Halving())
    for field in dataclasses.fields(Machine):
        machine = Machine(**{field.name: other(getattr(Machine(), field.name))})
        found = told(one, facts_of("signals", options, machine, Halving()))
        assert (found == []) == (field.name in OWN)
        names |= {field.name} if found else set()
    assert names | OWN == {field.name for field in dataclasses.fields(Machine)}
    for rule in (None, Race(), Halving(budget=0.2)):
        assert told(one, facts_of("signals", options, Machine(), rule))[0].startswith("select")
    assert told(one, facts_of("images", options, Machine(), Halving()))[0].startswith("task is")


def score(params, batch):
    return params["w"].sum() + batch.sum()


def elsewhere(params, batch):
    return score(params, batch)


def search(**changes):
    """The facts of a small search, with some of its parts changed."""
    params = {"w": np.ones(3, np.float32)}
    population = changes.pop("population", tj.population(jax.random.key(0), 4, 0.1))
    placement = place(params, backend="none", block_size=changes.pop("block_size", 1))
    placement = dataclasses.replace(placement, **changes.pop("placement", {}))
    assert isinstance(placement, Placement)
    settings = Settings(k=(1,), placement=placement)
    names = {field.name for field in dataclasses.fields(Settings)}
    settings = dataclasses.replace(
        settings, **{name: changes.pop(name) for name in list(changes) if name in names}
    )
    problem = Problem(score, params, np.ones(2, np.float32))
    return agreement.facts_of(dataclasses.replace(problem, **changes), population, settings)


KEY, NOISE = jax.random.key(0), tj.low_rank(1)
CHANGES = {
    "num": {"population": tj.population(KEY, 5, 0.1)},
    "population.sigmas": {"population": tj.population(KEY, 4, 0.2)},
    "population.key": {"population": tj.population(jax.random.key(1), 4, 0.1)},
    "population.signs": {"population": tj.population(KEY, 4, 0.1, antithetic=True)},
    "population.noise": {"population": tj.population(KEY, 4, 0.1, noise=NOISE)},
    "population.ids": {"population": tj.population(KEY, 5, 0.1)[1:]},
    "k": {"k": (2,)},
    "select": {"rule": Race()},
    "metric": {"metric": METRICS["mse"]},
    "combines": {"combines": {"mean": tj.mean_probs}},
    "score_fn": {"score_fn": elsewhere},
    "predict_fn": {"predict_fn": score},
    "grade": {"grade": score},
    "with_id": {"with_id": True},
    "block_size": {"block_size": 2},
    "stream": {"placement": {"stream": True}},
    "keep_items": {"keep_items": False},
    "run_dir": {"run_dir": "run"},
    "resume": {"resume": True},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_part_of_a_search_is_compared(name):
    found = told(search(), search(**CHANGES[name]))
    assert any(phrase.startswith(name) for phrase in found)
    assert told(search(), search()) == []


def test_devices_are_compared_and_what_only_one_has_is_named():
    one = search()
    assert set(one["devices"]) == {"all", "of each process"}
    two = one | {"devices": {"all": 8, "of each process": 4}, "new": 1}
    phrases = told(one, two)
    assert "devices.all is 1 in process 0 and 8 in process 2" in phrases
    assert "new is null in process 0 and 1 in process 2" in phrases


def test_one_process_agrees_with_itself():
    agreement.check({"anything": np.arange(3)})
