"""Whatever one process is told differently is named, before anything is done together."""

import dataclasses
import inspect
import json
import os
import socket

import jax
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.cli import machine
from thicket_jax.cli.machine import facts_of, working
from thicket_jax.cli.main import COMMANDS, main
from thicket_jax.cli.options import Machine
from thicket_jax.cli.run import run_options
from thicket_jax.errors import DataError, RunError
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement, place
from thicket_jax.runs.files import plain_json
from thicket_jax.scoring.metrics import METRICS
from thicket_jax.search import agreement, pipeline
from thicket_jax.search.problem import Problem, Settings
from thicket_jax.selection.halving import Halving
from thicket_jax.selection.race import Race
from thicket_jax.selection.rules import check_rule
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
        changed = Machine(**{field.name: other(getattr(Machine(), field.name))})
        found = told(one, facts_of("signals", options, changed, Halving()))
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
    assert agreement.together(lambda: 7) == 7


@pytest.mark.parametrize("task", registry.REGISTRY)
def test_no_option_of_a_run_is_left_out(task):
    """Those that `thicket run` reads, whoever adds one: compared, or what a process has alone."""
    parts = {part.name: part.type for part in dataclasses.fields(run_options(task))}
    assert set(parts) == {"task", "selection", "machine", "out"}
    told = facts_of(task, parts["task"](), Machine(), Race())
    assert set(told["options"]) == {x.name for x in dataclasses.fields(parts["task"])}
    own = OWN & {x.name for x in dataclasses.fields(parts["machine"])}
    assert set(told["machine"]) | own == {x.name for x in dataclasses.fields(parts["machine"])}
    assert {x.name for x in dataclasses.fields(parts["out"])} == {"out"}  # of process 0 alone
    words = {"select": "all", "budget": 0.2, "delta": 0.1}
    assert set(words) == {x.name for x in dataclasses.fields(parts["selection"])}
    for rule, field in (("race", "select"), ("halving", "budget"), ("race", "delta")):
        chosen = {"select": rule, "budget": None, "delta": None}
        one, two = (
            check_rule(x["select"], x["budget"], x["delta"])
            for x in (chosen, chosen | {field: words[field]})
        )
        facts = [facts_of(task, parts["task"](), Machine(), x) for x in (one, two)]
        (phrase, *_) = told_apart(*facts)
        assert phrase.startswith("select")


def told_apart(one, two):
    return agreement.disagreements([plain_json(one), plain_json(two)])


def answer(params, batch):
    return params["w"].sum() + batch.sum(-1)


def other_answer(params, batch):
    return answer(params, batch)


class StopHereError(Exception):
    """Where a search would begin."""


SEARCH = {
    "score_fn": score,
    "params": {"w": np.ones(3, np.float32)},
    "train": np.ones((4, 2), np.float32),
    "key": KEY,
    "num": 8,
    "k": 2,
    "sigma": (0.1, 0.2),
    "noise": None,
    "antithetic": False,
    "assign": "cycle",
    "predict_fn": answer,
    "test": np.ones((4, 2), np.float32),
    "targets": np.ones(4, np.float32),
    "metric": "mse",
    "combine": tj.mean,
    "grade": None,
    "block_size": 1,
    "devices": None,
    "backend": "pmap",
    "keep_items": True,
    "stream": False,
    "select": "all",
    "budget": None,
    "delta": None,
    "bounds": None,
    "run_dir": None,
    "resume": False,
    "progress": None,
}
OTHER = {
    "score_fn": elsewhere,
    "params": {"w": np.zeros(3, np.float32)},
    "train": np.zeros((4, 2), np.float32),
    "key": jax.random.key(1),
    "num": 6,
    "k": 3,
    "sigma": 0.1,
    "noise": NOISE,
    "antithetic": True,
    "assign": "random",
    "predict_fn": other_answer,
    "test": np.zeros((4, 2), np.float32),
    "targets": np.zeros(4, np.float32),
    "metric": other_answer,
    "combine": tj.median,
    "grade": score,
    "block_size": 2,
    "devices": jax.devices()[:4],
    "backend": "shard_map",
    "keep_items": False,
    "stream": True,
    "select": "race",
    "budget": {"select": "halving", "budget": 0.5},
    "delta": {"select": "race", "delta": 0.2},
    "bounds": {"select": "race", "bounds": (0, 9)},
    "run_dir": "run",
    "resume": {"run_dir": "run", "resume": True},
}
NAMED = {
    "params": "base parameters", "train": "training data", "test": "test data",
    "targets": "test data", "key": "population.key", "sigma": "population.sigmas",
    "noise": "population.noise", "antithetic": "population.signs", "assign": "population.sigmas",
    "combine": "combines", "budget": "select", "delta": "select", "bounds": "select",
}  # fmt: skip


@pytest.fixture
def facts(monkeypatch):
    """What one of two processes would send of `tj.randopt(...)` before it scores."""
    sent = []

    def stop(*_):
        raise StopHereError

    def of_search(**changes):
        sent.clear()
        with pytest.raises(StopHereError):
            tj.randopt(**{**SEARCH, **changes})
        return {name: x for part in sent for name, x in part.items()}

    def inputs(problem):
        with monkeypatch.context() as patched:
            patched.setattr(jax, "process_count", lambda: 2)
            check_inputs(problem)
        stop()

    check_inputs = pipeline._check_inputs
    monkeypatch.setattr(pipeline, "_check_inputs", inputs)
    monkeypatch.setattr(pipeline.manifest, "before", lambda *_: 1)
    monkeypatch.setattr(pipeline.agreement, "check", lambda found: sent.append(plain_json(found)))
    return of_search


def test_every_argument_of_a_search_is_compared(facts):
    """Those of the function's own signature; `progress` is what a process may have for itself."""
    names = set(inspect.signature(tj.randopt).parameters)
    assert names == set(SEARCH) and set(OTHER) == names - {"progress"}
    one = facts()
    assert told_apart(one, facts(progress=print)) == []
    for name, value in OTHER.items():
        changed = value if isinstance(value, dict) and name != "params" else {name: value}
        before = {**changed, name: SEARCH[name]}
        phrases = told_apart(facts(**before) if len(changed) > 1 else one, facts(**changed))
        assert any(x.startswith(NAMED.get(name, name)) for x in phrases), (name, phrases)


def two_processes(monkeypatch, *others):
    """This is process 0; the others say what they are given, in turn."""
    monkeypatch.setattr(jax, "process_count", lambda: 1 + len(others))
    said = [json.dumps(other).encode() for other in others]
    monkeypatch.setattr(agreement, "of_everyone", lambda own: [own, *said])


def test_what_fails_on_one_process_alone_ends_all(monkeypatch):
    def fails():
        raise DataError("there is no data.csv here")

    two_processes(monkeypatch, None, None)
    assert agreement.together(lambda: 7) == 7
    with pytest.raises(DataError, match="no data"):
        agreement.together(fails)
    two_processes(monkeypatch, None, "there is no data.csv here")
    with pytest.raises(RunError, match=r"process 2 failed, so that .* ends: there is no data\.csv"):
        agreement.together(lambda: 7)
    with pytest.raises(RunError, match=r"process 2 failed.*no data"):  # before anything is read
        tj.randopt(**SEARCH)


@pytest.mark.parametrize("exchange", ["of_everyone", "from_first", "gather"])
def test_a_dead_process_is_one_line_and_nobody_waits_for_it_at_the_end(
    exchange, monkeypatch, capsys
):
    def closed(*_):
        raise ValueError("UNKNOWN: Gloo failed: Connection closed by peer\nand more")

    for name in ("process_allgather", "broadcast_one_to_all"):
        monkeypatch.setattr(devices.multihost_utils, name, closed)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mapper = devices.Mapper(tuple(jax.devices()), "pmap")
    call = {"gather": lambda: mapper.gather({}), "from_first": lambda: devices.from_first(1)}
    call["of_everyone"] = lambda: devices.of_everyone(b"")

    def working_command(_):
        with working("what is scored is kept"):
            call[exchange]()

    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for code, command in ((2, lambda _: call[exchange]()), (1, working_command)):
        monkeypatch.setitem(COMMANDS, "report", command)
        main(["report"])
        (line,) = capsys.readouterr().err.splitlines()
        says = "thicket: another process ended (UNKNOWN: Gloo failed: Connection closed by peer)"
        assert line.startswith(says) and ended.pop() == code and not ended
        assert line.endswith("; what is scored is kept") == (code == 1)


def test_a_process_0_that_never_starts_is_one_line(monkeypatch):
    monkeypatch.setattr(machine, "_PATIENCE", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RunError, match=f"process 0 does not answer at --coordinator {place} "):
        machine.start_devices(Machine(coordinator=place, processes=2, process_id=1))
