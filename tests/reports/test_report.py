"""The report of a run directory: its figures, and what it says in words."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from reported_runs import experts_json, record, write

from thicket_jax.errors import RunError
from thicket_jax.reports import report
from thicket_jax.reports.results import build_results
from thicket_jax.runs import record as run_record


def test_a_figure_that_was_not_written_is_named(tmp_path):
    with pytest.raises(RunError, match=r"ghost\.png was announced but not written"):
        write(record(), tmp_path / "run", draw=lambda run, folder: [("ghost.png", "boo")])


def test_figures(signals_run, tmp_path):
    folder = shutil.copytree(signals_run, tmp_path / "run")
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"comparison.png", "sweep.png", "scores.png", "transfer.png"}
    for path in (folder / "figures").iterdir():
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.width > 600
            assert np.asarray(image.convert("L")).std() > 5  # not blank
    text = (folder / "report.md").read_text()
    assert re.search(r"Not drawn: \d+ of 294 above [\d.,]+, up to 3\.40e30", text)
    for name in names:
        assert f"(figures/{name})" in text
    # A later report of one K leaves no figure of the sweep behind.
    run = run_record.load(folder)
    report.write(run, folder, build_results(run, [5], "mean"))
    assert not (folder / "figures/sweep.png").exists()


@pytest.mark.parametrize(
    "scores", [[0.5] * 4, [0.0, 0.0, 0.0, 1.0], [1e-30, 1e30, 5.0, 2.0], [-3.0, 4.0, 0.0, 1.0]]
)
def test_figures_of_strange_scores(tmp_path, scores):
    experts = experts_json([*scores, np.nan], [False] * 4 + [True], [0.1] * 5, base=0.5)
    for metric in ("accuracy", "score"):
        run = record(metric, experts=experts, answers=None)
        _, paths = write(run, tmp_path / metric)
        assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (np.tile([[0, 1, 2]], (3, 40)), "An ensemble of 3 beats the base"),
        (np.tile([[1, 0, 1]], (3, 40)), "An ensemble of 3 is worse than the base"),
        (np.tile([[0, 0, 2]], (3, 40)), "An ensemble of 3 cannot be told from the base"),
    ],
)
def test_the_headline_says_what_the_interval_says(tmp_path, answers, said):
    run = record(
        targets=np.tile([0, 1, 2], 40), base_answers=np.tile([0, 0, 2], 40), answers=answers,
        random_answers=None,
    )  # fmt: skip
    write(run, tmp_path / "run")
    assert said in (tmp_path / "run/report.md").read_text()
    assert said in (tmp_path / "run/report.html").read_text()


def test_the_report_is_written_out_in_full(tmp_path):
    write(record(), tmp_path / "run")
    text = (tmp_path / "run/report.md").read_text()
    assert "On 4 held-out items, the base's accuracy is 0.50." in text
    assert "The ensemble of the 3 best of 5 experts (σ 0.001, 0.002)" in text
    assert "has 1.000: a difference of +0.50" in text
    assert "1 of 5 experts failed" in text
    assert "    thicket run digits --num 5 --k 1,3" in text
    assert "root key \\[0, 7\\] (threefry2x32)" in text
    assert "A note." in text
    rows = [line for line in text.splitlines() if line.startswith("| 0.00")]
    assert rows[0] == "| 0.001 | 3 | 0.7500 | 0.7500 | 66.7 % | 20.8 to 93.9 % | 33.3 % |"
