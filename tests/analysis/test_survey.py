"""One population on several tasks: the numbers, the page, and the command."""

import dataclasses
import json

import numpy as np
import pytest
from logged_runs import logged_run

from thicket_jax.analysis import survey
from thicket_jax.cli.main import main
from thicket_jax.errors import ArgumentError
from thicket_jax.reports import survey_page

RNG = np.random.default_rng(0)
SIGMAS = np.repeat(np.float32([0.1, 0.2]), 30)


def records():
    shared = RNG.normal(size=(60, 1))
    alike = [shared + 0.1 * RNG.normal(size=(60, 8)) for _ in range(2)]
    other = RNG.normal(size=(60, 1)) + 0.1 * RNG.normal(size=(60, 8))
    return {
        name: logged_run(items.astype(np.float32), SIGMAS)
        for name, items in (("one", alike[0]), ("two", alike[1]), ("other", other))
    }


def test_discordance_tells_generalists_from_specialists(tmp_path):
    runs = records()
    found = survey.measure(runs, (0.0, 0.5))
    survey_page.write(found, tmp_path)
    for row in found["discordance"]:
        C = np.asarray(row["correlation"])
        assert C[0, 1] > 0.9 and abs(C[0, 2]) < 0.5
        assert 0.3 < row["discordance"] < 1.1
        assert row["without_noise"] <= row["discordance"] + 0.02
    for name, task in found["tasks"].items():
        assert len(task["density"]) == 4
        curve = [r["fraction_ge"] for r in task["curve"] if r["sigma"] == 0.1]
        assert curve == sorted(curve, reverse=True)
        scores = runs[name].scores
        assert task["density"][0]["fraction_ge"] == (scores[:30] >= runs[name].base_score).mean()
        assert task["reliability"][0]["value"] > 0.9
        chosen = task["selection"]
        assert chosen["k"] == 10 and chosen["held_out"]["value"] > 0.8 and chosen["test"] is None
        assert chosen["control"]["p_value"] < 0.01 and "exceedances" in chosen["tail"]["why"]
        assert [row["items"] for row in chosen["regret"]] == [1, 2, 4]
        assert chosen["needed"] < 60 and chosen["best_of"][-1]["n"] == 60
    assert sum(found["specialists"]["clusters"]["sizes"]) == 60
    stored = json.loads((tmp_path / "density.json").read_text())
    assert stored["num"] == 60 and list(stored["tasks"]) == ["one", "two", "other"]
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/png") == 3 and 'src="http' not in html
    assert "Discordance" in (tmp_path / "report.md").read_text()
    assert any("discordance at sigma 0.1" in line for line in survey_page.lines(found))


def test_one_task_has_density_alone(tmp_path):
    found = survey.measure({"one": records()["one"]})
    survey_page.write(found, tmp_path)
    assert "discordance" not in found
    assert sorted(x.name for x in (tmp_path / "figures").iterdir()) == ["density.png"]


def test_runs_that_cannot_be_compared_are_one_line():
    runs = records()
    config = {**runs["two"].config, "fingerprints": {"params": "another"}}
    runs["two"] = dataclasses.replace(runs["two"], config=config)
    with pytest.raises(ArgumentError, match="two has other base parameters than one"):
        survey.measure(runs)
    with pytest.raises(ArgumentError, match="records is empty"):
        survey.measure({})


TWO = ["x=signals", "y=signals", "--k", "1", "--num", "5", "--x.pretrain", "xavier"]
TWO += ["--sigma", "0.1", "--train-items", "4", "--test-items", "4"]
TINY = ["--pretrain", "xavier", "--num", "12", "--train-items", "8", "--test-items", "8"]
TINY += ["--k", "1,4", "--sigma", "0.05,0.1", "--block-size", "1", "--wave.target", "sinusoid"]


def test_the_command_scores_one_population_and_goes_on(tmp_path, capsys, monkeypatch):
    for name in ("reports.figures", "tasks.signals.figure"):  # pictures of each task's run
        monkeypatch.setattr(f"thicket_jax.{name}.draw", lambda *_: [])
    out = tmp_path / "out"
    words = ["density", "line=signals", "wave=signals", *TINY, "--line.target", "line"]
    words += ["--scale", "modular", "--line.masses", "kernel=0.5"]
    words += ["--out", str(out), "--cache", str(tmp_path / "cache"), "--quiet"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "12 experts on 2 task(s)" in text and "discordance at sigma 0.05" in text
    rows = [json.loads((out / n / "experts.json").read_text()) for n in ("line", "wave")]
    assert rows[0]["population"] == rows[1]["population"]
    masses = rows[0]["population"]["noise"]["masses"]
    assert masses == [["kernel", 0.5]]  # of the first task for all, and part of every expert
    targets = [json.loads((out / n / "config.json").read_text()) for n in ("line", "wave")]
    assert [config["options"]["target"] for config in targets] == ["line", "sinusoid"]
    before = (out / "density.json").read_bytes()
    assert main(words) == 0  # nothing is scored again
    assert (out / "density.json").read_bytes() == before
    capsys.readouterr()
    words[words.index("--line.target") + 1] = "sinusoid"
    assert main(words) == 2  # the folder has another run
    assert 'options.target was "line", is now "sinusoid"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["density"], "needs tasks first"),
        (["density", "--num", "5"], "needs tasks first"),
        (["density", "sinals"], "unknown task 'sinals'"),
        (["density", "signals", "signals"], "signals is there twice"),
        (["density", "signals", "--wave.target", "line"], "--wave.target names 'wave'"),
        (["density", "signals", "--nun", "5"], "--nun"),
        (["density", "a/b=signals"], "must be of letters"),
        (["density", "=signals"], "must be of letters"),
        (["density", "signals", "--margins", "0,nan"], "--margins '0.0,nan' must be finite"),
        (["density", "signals", "--margins", ""], "--margins is empty"),
        (["density", "signals", "--distributed"], "runs in one process"),
        (["density", "signals", "x=signals", "--x.k", "9", "--num", "5", "--k", "1"], "k=9 is"),
        (["density", *TWO, "--y.pretrain", "kaiming"], "y has other base parameters than x"),
        (["density", *TWO, "--y.target", "cosine"], "cosine"),
        (
            ["density", "signals", "--k", "1", "--num", "5", "--out", f"{__file__}/x"],
            "Not a directory",
        ),
    ],
)
def test_wrong_words_are_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cache = ["--cache", str(tmp_path / "cache"), "--quiet"] if words[1:2] else []
    assert main([*words, *cache]) == 2
    captured = capsys.readouterr().err
    assert says in captured and len(captured.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()  # nothing was scored
