"""experiments/what_makes_an_ensemble: its quick form as one types it, and its rule by hand."""

import json

import pytest


@pytest.fixture
def experiment(experiment):
    """Imports a module of the experiment by its short name."""
    return lambda name: experiment(f"experiments.what_makes_an_ensemble.{name}")


@pytest.mark.usefixtures("fast_compiling", "untrained")
def test_quick_form_measures_judges_draws_and_goes_on(experiment, tmp_path, capsys):
    words = ("--quick", "--tasks", "signals", "--out", str(tmp_path))
    main = experiment("__main__").main
    assert main(words) == 0
    assert "weighted top K against the top 5" in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert [run["case"] for run in table["runs"]] == [
        "signals, mixed → sinusoid",
        "signals, mixed → squarewave",
    ]
    for run in table["runs"]:
        rows = {(row["way"], row["k"]): row for row in run["rows"]}
        for k in (1, 5):
            top = rows["top K", k]
            assert rows["weighted top K", k]["test"] <= run["single"]["test"] * 10
            for row in (x for (_, size), x in rows.items() if size == k and "squared" in x):
                parts = row["squared"]
                assert parts["error"] == pytest.approx(
                    parts["mean_error"] - parts["diversity"], rel=1e-4
                )
                assert parts["diversity"] > -1e-9 and 1 <= row["distinct"] <= k
                if row["way"] != "median of top K":  # the mean's error is the metric itself
                    assert parts["error"] == pytest.approx(row["test"], rel=1e-4)
            delta, error, low, high = top["minus"]["base"]
            assert low <= delta <= high and error >= 0
            assert delta == pytest.approx(1 - top["test"] / run["base"]["test"], abs=1e-4)
        assert rows["top K", 1]["test"] == run["single"]["test"]
        # One member, merged with weight 1, is that member.
        assert rows["merged top K", 1]["test"] == pytest.approx(run["single"]["test"], rel=1e-3)
        # The first pick of greedy is the best single, and a mean of more picks never fits worse.
        assert rows["greedy", 1]["train"] == rows["top K", 1]["train"]
        assert rows["greedy", 5]["train"] <= rows["greedy", 1]["train"] * 1.0001
    for name in ("ensembles.png", "parts.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert "| signals, mixed → sinusoid, complementary |" in (tmp_path / "table.md").read_text()

    assert main([*words[:-2], "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "table.json").read_text()) == table
    capsys.readouterr()
    assert main(["--tasks", "signals", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "searches of other settings: cases.digits, noisy.draws was 3, is now 20; " in error
    assert len(error.splitlines()) == 1
    assert main(["--tasks", "words"]) == 2
    assert "tasks='words'" in capsys.readouterr().err


def test_rule_by_hand(experiment):
    verdict = experiment("verdict")

    def rows(*found):
        return [{"minus": {"top": list(x)}} for x in found]

    ahead = verdict.pooled(rows((0.2, 0.05, 0.1, 0.3), (0.1, 0.05, 0.0, 0.2)), "top")
    half = 1.96 * (2 * 0.05**2) ** 0.5 / 2
    assert ahead["verdict"] == "ahead" and ahead["delta"] == pytest.approx(0.15)
    assert (ahead["low"], ahead["high"]) == pytest.approx((0.15 - half, 0.15 + half))
    # One seed clearly the other way: level, whatever the mean says.
    split = verdict.pooled(rows((0.9, 0.05, 0.8, 1.0), (-0.2, 0.05, -0.3, -0.1)), "top")
    assert split["low"] > 0 and split["verdict"] == "level"
    behind = verdict.pooled(rows((-0.2, 0.05, -0.3, -0.1)), "top")
    assert behind["verdict"] == "behind"
    assert verdict.pooled(rows((0.0, 0.05, -0.1, 0.1)), "top")["verdict"] == "level"
    assert verdict.pooled(rows((None, None, None, None)), "top") is None
    assert verdict.pooled(rows((0.2, 0.05, 0.1, 0.3)), "base") is None
    assert verdict.saturated([(1, -0.1), (5, 0.0)]) is None
