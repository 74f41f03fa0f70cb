"""The experiment of racing: every way is measured, and it goes on where it stopped."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from classifier import batch, correct, logits, params
from experiment_runs import ROOT

from thicket_jax.ensembles.combine import combine_rules
from thicket_jax.scoring.metrics import metric
from thicket_jax.search.problem import Problem
from thicket_jax.tasks import task as task_module


class TinyTask:
    """A task module as the experiment sees one, with a model that compiles fast."""

    Options = task_module.Options

    @staticmethod
    def build(options):
        data = {"image": jnp.tile(batch()["image"], (2, 1))[:64], "shift": jnp.ones(3)}
        data["label"] = jnp.tile(batch()["label"], 2)[:64]
        assert options.train_items == 64 and options.num == 100
        return task_module.Task(
            name="tiny", model="tiny", problem=Problem(
                score_fn=correct, params=params(), train=data, predict_fn=logits, test=data,
                targets=np.asarray(data["label"]), metric=metric("accuracy"),
                combines=combine_rules("majority_vote"),
            ),
        )  # fmt: skip


def test_the_experiment_measures_every_way_and_goes_on_where_it_stopped(
    experiment, tmp_path, monkeypatch, capsys
):
    """Its quick form, on a task that compiles fast."""
    main = experiment("experiments.racing.__main__").main
    measure = experiment("experiments.racing.measure")
    monkeypatch.setattr(measure.registry, "module", lambda name: TinyTask)
    words = ["--quick", "--tasks", "signals", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "signals seed 0, halving, 0.1: " in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    (run,) = table["runs"]
    assert list(run["ways"]) == ["full", "halving, 0.1", "race, 0.05"]
    full, half, race = run["ways"].values()
    assert full["found"] == 2 <= full["as_good"] and full["share"] == 1 and not full["rounds"]
    assert 0.05 < half["share"] <= 0.1
    assert full["lost"] == race["lost"] == 0 <= half["lost"] < 1
    assert race["found"] <= race["as_good"] == 2 and race["guarantee"]["bounds"] == [0, 1]
    for row in table["summary"]:
        assert row["seconds"] > row["score_seconds"] > 0 and row["cold_seconds"] is None
        assert row["share"] == run["ways"][row["way"]]["share"]
    faster = full["seconds"]["total"] / half["seconds"]["total"]
    found, share, warm, cold = table["targets"]
    assert found["measured"] == half["found"] / 2 and found["met"] == (half["found"] == 2)
    assert share["met"] and warm["measured"] == pytest.approx(faster) and cold["met"] is None
    text = (tmp_path / "table.md").read_text()
    assert "| halving, 0.1 |" in text and "**stories** was not measured" in text
    assert "experts to item: 100 to" in text
    monkeypatch.setattr(measure, "measure", None)
    assert main(words) == 0 and (tmp_path / "table.md").read_text() == text
    assert main(["--tasks", "digits", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "has runs of other settings: cases.digits.k was 2, is now 10; " in error
    assert main([*words, "--tasks", "cubes"]) == 2
    assert "tasks='cubes' is unknown" in capsys.readouterr().err


def test_nothing_that_is_stored_gives_a_race_without_bounds_a_probability():
    """The table was measured by a release that did."""
    folder = ROOT / "experiments" / "racing"
    table = json.loads((folder / "results" / "table.json").read_text())
    races = [way["guarantee"] for run in table["runs"] for way in run["ways"].values()]
    races = [race for race in races if race is not None]
    assert {race["bounds"] is None for race in races} == {True, False}
    for race in races:
        assert ("A heuristic" in race["sentence"]) == (race["bounds"] is None)
        assert ("robability" in race["sentence"]) == (race["delta"] is not None)
    for name in ("README.md", "results/table.md"):
        text = (folder / name).read_text()
        assert text.count("robability at least") == text.count("Outcomes lie between 0 and 1") == 2
        assert text.count("A heuristic, without any guarantee") == 1
