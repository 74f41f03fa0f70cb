"""Equal-inference baselines and gains: by hand, and what the report says of them."""

import numpy as np
import pytest
import reported_runs

from thicket_jax.reports.results import build_results
from thicket_jax.scoring import metrics

TABLE = np.array([[1, 0, np.nan], [0, 1, np.nan], [0, 0, 1], [1, np.nan, np.nan]], np.float32)
HAND = {
    "targets": TABLE,
    "answers": np.array([[0, 0, 2, -1], [1, 1, 0, 0], [1, 1, 0, -1]], np.int32),
    "base_answers": np.array([1, 0, 2, -1], np.int32),
    "sample_answers": np.array([[0, 0, 0, -1], [1, 0, 0, -1], [0, -1, 0, -1]], np.int32),
    "random_answers": np.array([[1, 1, 1, 0], [1, 0, 1, 0], [-1, 1, 1, -1]], np.int32),
    "columns": {"strict": np.float32([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, np.nan]])}
    | {"flexible": np.float32([[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0]])},
    "base_columns": {"strict": np.float32([0, 0, 1, 0]), "flexible": np.float32([1, 0, 1, 0])},
}


def by_hand(**changes):
    """Kept experts of scores 1, 0.5 and 0.5."""
    combines = ("majority_vote", "weighted_vote")
    return reported_runs.record(combines=combines, k=(3,), **(HAND | changes))


def test_outcomes_are_looked_up_and_abstaining_is_none():
    per_item = metrics.metric("accuracy").per_item
    found = [per_item(row, TABLE).tolist() for row in HAND["answers"]]
    assert found == [[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    assert per_item(HAND["base_answers"], TABLE).dtype == np.float64
    # Labels and logits are graded as before.
    labels = np.array([2, 0])
    assert per_item(np.array([2, 1]), labels).tolist() == [1, 0]
    assert per_item(np.float32([[0, 0, 1], [0, 1, 0]]), labels).tolist() == [1, 0]


def test_votes_and_baselines_by_hand():
    results = build_results(by_hand())
    majority, weighted = results["ensemble"]
    # Majority [1, 1, 0, 0]; weights 1, ½, ½ tie on the first three items: the best expert's.
    assert (majority["combine"], majority["test"]) == ("majority_vote", 0.5)
    assert (weighted["combine"], weighted["test"]) == ("weighted_vote", 0.75)
    rows = {(row["combine"], row["name"]): row for row in results["baselines"]}
    assert len(results["baselines"]) == len(rows) == 8
    for rule in ("majority_vote", "weighted_vote"):
        tests = [rows[rule, name]["test"] for name in ("base", "self_consistency")]
        tests += [rows[rule, name]["test"] for name in ("random_control", "best_single")]
        assert tests == [0.25, 0.25, 0.5, 0.5]
        assert rows[rule, "self_consistency"]["delta_vs_base"] == 0  # one item won, one lost
        assert all(rows[rule, name]["k"] == 3 for _, name in rows)
    row = rows["weighted_vote", "base"]
    assert row["delta_vs_base"] == 0 and row["delta_ci95"] == [0, 0]
    t3, error = 3.182446305284263, np.sqrt(1 / 3) / 2  # [1, 0, 0, 1] less the mean
    assert row["ensemble_minus_baseline"] == 0.5
    assert row["ensemble_minus_ci95"] == pytest.approx([0.5 - t3 * error, 0.5 + t3 * error])
    assert rows["majority_vote", "random_control"]["ensemble_minus_baseline"] == 0
    assert build_results(by_hand(sample_answers=None))["baselines"] == []


def test_gains_by_hand():
    found = build_results(by_hand())["gains"]
    assert (found["items"], found["base"]) == (4, {"strict": 0.25, "flexible": 0.5})
    assert found["kept"] == {"strict": pytest.approx(4 / 12), "flexible": pytest.approx(5 / 12)}
    parts = ("reasons_better", "format_only", "regressed")
    counts = [[row[part]["count"] for part in parts] for row in found["rows"]]
    # Best single [1, 0, 1, 0], majority [0, 1, 0, 1], weighted [1, 0, 1, 1].
    assert counts == [[0, 1, 0], [2, 0, 1], [1, 1, 0]]
    assert found["rows"][1]["regressed"]["points"] == 25
    assert [row["name"] for row in found["rows"]] == ["best_single", "ensemble", "ensemble"]
    assert "gains" not in build_results(by_hand(columns={}))


def test_the_report_says_it(tmp_path):
    run = by_hand()
    run.config["task_provenance"] = {"sampling": {"temperature": 0.7}}
    reported_runs.write(run, tmp_path / "run")
    text = (tmp_path / "run/report.md").read_text()
    assert "## Equal-inference baselines" in text and "## Format and reasoning" in text
    assert "K samples of the base at temperature 0.7, with" in text
    assert "| — self-consistency, 3 of the base's samples | 0.25 |" in text
    assert "| 3 experts, majority vote | 50.0 (2) | 0.0 (0) | 25.0 (1) |" in text
    assert "the base has 25.0 % right when" in text
    assert "random experts, median" not in text
    assert "self-consistency" in (tmp_path / "run/report.html").read_text()
    other = by_hand(sample_answers=None, columns={}, base_columns={})
    reported_runs.write(other, tmp_path / "other")
    text = (tmp_path / "other/report.md").read_text()
    assert "random experts, median of 3" in text
    assert "baselines" not in text and "Format" not in text
