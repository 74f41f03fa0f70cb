"""experiments/stories: its quick form on a tiny model, and its rule by hand."""

import json

import pytest
from language_models import make_checkpoint
from language_tasks import InProcess

from thicket_jax.tasks.language import shared


@pytest.mark.usefixtures("fast_compiling")
def test_stories_searches_judges_and_draws(experiment, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(shared, "Graders", InProcess)  # a worker takes a second to start
    main = experiment("experiments.stories.__main__").main
    model = make_checkpoint(tmp_path / "model")
    tmp_path = tmp_path / "out"
    words = ("--quick", "--noises", "rademacher", "--sigmas", "0.01", "--out", str(tmp_path))
    assert main(["--model", str(model), *words]) == 0
    assert "[1/1] rademacher, sigma 0.01, seed 0: base " in capsys.readouterr().out
    written = (tmp_path / "table.json").read_text()
    assert str(model.parent) not in written and str(tmp_path) not in written
    table = json.loads(written)
    (run,), (row,) = table["runs"], table["summary"]
    assert (run["noise"], run["sigma"], run["seed"]) == ("rademacher", 0.01, 0)
    assert {row["name"] for row in run["baselines"]} == {
        *("base", "self_consistency", "random_control", "best_single")
    }
    assert [(e["k"], e["combine"]) for e in run["ensemble"]] == [
        *((1, "majority_vote"), (4, "majority_vote"), (1, "weighted_vote"), (4, "weighted_vote"))
    ]
    assert run["density"]["n"] == table["settings"]["num"] == 32 and 0 <= run["perfect"] <= 1
    assert run["tokens_per_s"] > run["experts_per_s"] > 0 and table["seconds"] > 0
    assert set(run["seconds"]) == {"setup", "compile", "score", "answer", "total"}
    assert row["base"] == run["base"]["test"] and row["best_single"] == run["best"]["test"]
    assert row["ensemble"]["1"] == run["best"]["test"]
    assert len(table["verdicts"]) == 8 and {v["runs"] for v in table["verdicts"]} == {1}
    for name in ("accuracy.png", "density.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    text = (tmp_path / "table.md").read_text()
    assert "| rademacher, 0.01 |" in text and "Ensemble of 4 against random control" in text

    (tmp_path / "table.md").unlink()
    assert main(["--draw", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "table.md").read_text() == text
    capsys.readouterr()
    assert main(["--model", str(model), *words]) == 0  # measures nothing again
    assert "1 of 1 searches are in" in capsys.readouterr().out
    assert (tmp_path / "table.json").read_text() == written
    for wrong, message in (
        ((), "--model is missing"),
        (("--model", "x", "--noises", "pink"), "noises='pink' is unknown"),
        (("--model", "x", "--k", "600"), "k=600 is larger than num=512"),
    ):
        assert main([*wrong, "--out", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_stories_verdicts_follow_the_intervals(experiment):
    verdict = experiment("experiments.stories.verdict")

    def run(sigma, intervals):
        rows = [
            {
                **{"name": name, "k": 5, "combine": "majority_vote", "test": 0.5},
                **{"ensemble_minus_baseline": sum(ends) / 2, "ensemble_minus_ci95": list(ends)},
            }
            for name, ends in zip(verdict.BASELINES, intervals, strict=True)
        ]
        return {"sigma": sigma, "baselines": rows}

    above, across, below, touching = (0.1, 0.3), (-0.1, 0.3), (-0.3, -0.1), (0.0, 0.2)
    runs = [run(0.01, (above, across, below, touching)), run(0.03, (above, below, below, above))]
    found = {
        (row["baseline"], row["sigma"]): tuple(row[name] for name in verdict.VERDICTS)
        for row in verdict.judge(runs, 5)
    }
    assert found["base", None] == (2, 0, 0) and found["base", 0.01] == (1, 0, 0)
    assert found["self_consistency", None] == (0, 1, 1)
    assert found["random_control", None] == (0, 0, 2)
    assert found["best_single", 0.01] == (0, 1, 0) and found["best_single", None] == (1, 1, 0)
