"""experiments/signals: its quick form as one types it, its rule by hand, its pairs."""

import json

import pytest
from experiment_runs import ROOT, done


def test_signals_runs_judges_and_goes_on_where_it_stopped(experiment, tmp_path, capsys):
    words = ("--quick", "--pairs", "xavier:one_line", "--out", str(tmp_path))
    out = done("experiments.signals", *words)
    assert "0 of 1 runs" in out and "thicket: not judged" in out
    table = json.loads((tmp_path / "table.json").read_text())
    (one,) = table["runs"]
    assert (one["pair"], one["seed"]) == ("xavier:one_line", 0)
    for kind in ("base", "best"):
        assert one[kind]["test"] > 0 and one[kind]["test_stderr"] is not None
    mean = next(row for row in one["ensemble"] if row["combine"] == "mean")
    assert mean["k"] == table["settings"]["k"] and len(mean["delta_ci95"]) == 2
    assert 0 <= one["share_half"] <= one["share_gt"] <= one["share_ge"] <= 1
    assert set(one["seconds"]) == {"setup", "pretrain", "compile", "score", "ensemble", "total"}
    assert {"versions", "cores", "processor", "platform"} <= set(one["provenance"])
    assert table["pairs"][0]["ratio"] == pytest.approx(mean["test"] / one["base"]["test"])
    assert (tmp_path / "overview.png").stat().st_size > 10_000
    assert "xavier → one_line" in (tmp_path / "table.md").read_text()

    main = experiment("experiments.signals.__main__").main
    assert main(words) == 0 and "1 of 1 runs" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text()) == table

    assert main(["--num", "7", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "runs of other settings: k was 2, is now 10; num was 20, is now 7; " in error
    assert len(error.splitlines()) == 1
    assert json.loads((tmp_path / "table.json").read_text()) == table


@pytest.mark.parametrize(
    ("pair", "message"),
    [("mixed", "must be PRETRAIN:TARGET"), ("mixed:cube", "target='cube' is unknown")],
)
def test_bad_pairs_are_one_line(pair, message, experiment, tmp_path, capsys):
    main = experiment("experiments.signals.__main__").main
    assert main(["--quick", "--pairs", pair, "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def row(pair, ratio, share, gain):
    return {"pair": pair, "ratio": ratio, "share": share, "gain": gain}


def test_verdicts_follow_the_rule(experiment):
    verdict = experiment("experiments.signals.verdict")
    rows = [
        row("xavier:one_line", 0.6, 0.009, 1.0),
        row("xavier:one_sinusoid", 0.5, 0.0, 1.0),  # halved: no needle
        row("mixed:line", 0.5, 0.01, 1.0),
        row("line:line", 0.3, 0.2, 0.05),
        row("sinusoid:squarewave", 0.1, 0.9, 1.0),  # another family: no claim
    ]
    found = {v["claim"]: v for v in verdict.judge(rows, 10, 1000)}
    assert found["needle"]["verdict"] == "holds for 1 of 2 pairs"
    assert found["needle"]["pairs"] == {"xavier:one_line": True, "xavier:one_sinusoid": False}
    assert found["thicket"]["verdict"] == "holds"
    assert found["plateau"]["verdict"] == "does not hold"
    assert found["plateau, on the signal's scale"]["verdict"] == "holds"
    dense = verdict.judge([row("mixed:line", 0.4, 0.0099, 1.0)], 10, 1000)
    assert dense[1]["verdict"] == "does not hold" and dense[0]["verdict"].startswith("not judged")


def test_every_pair_of_the_official_table_is_run(experiment):
    pairs = experiment("experiments.signals.measure").PAIRS
    peer = json.loads((ROOT / "experiments/signals/peer.json").read_text())["pairs"]
    assert len(pairs) == len(set(pairs)) == 16
    assert set(pairs) - set(peer) == {"line:line", "sinusoid:sinusoid"}
    assert set(peer) < set(pairs)
