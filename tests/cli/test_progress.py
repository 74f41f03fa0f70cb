"""What the command line shows meanwhile."""

import time

import pytest

from thicket_jax.cli import progress
from thicket_jax.search.problem import SearchProgress


def test_progress_lines_show_tokens_best_and_base():
    said = []
    with progress.Progress(said.append) as shown:
        shown(SearchProgress(0, 20, None, 0.25, 0))
        shown(SearchProgress(2, 20, 0.5, 0.25, 6000))
        shown(SearchProgress(3, 20, 0.5, 0.25, 9000))
        shown(SearchProgress(20, 20, 0.625, None, None))
    assert len(said) == 2
    for part in ("2/20 experts, ", "/s, ", " tokens/s, ", "best 0.5, ", "base 0.25, ", " s left"):
        assert part in said[0]
    assert "tokens" not in said[1] and "base" not in said[1] and "best 0.625" in said[1]


def test_what_the_log_has_and_each_round_are_said_once():
    said = []
    with progress.Progress(said.append) as shown:
        shown(SearchProgress(8, 20, 0.5, 0.25, None))
        shown(SearchProgress(20, 20, 0.5, 0.25, None))
        shown(SearchProgress(0, 4, 0.5, 0.25, None, "round 1"))
        shown(SearchProgress(4, 4, 0.5, 0.25, None, "round 1"))
    assert [line.split(",")[0] for line in said] == [
        "8 of 20 experts are in the log",
        "20/20 experts",
        "round 1: 4 experts",
        "4/4 experts",
    ]


def test_a_landscape_is_shown_by_tenths_of_its_points():
    said = []
    with progress.Progress(said.append, "point", "line") as shown:
        for done in range(5, 101, 5):
            shown.points(done, 100)
    assert said[0] == "line: 5 of 100 points are in the log"
    assert [line.split(",")[0] for line in said[1:]] == [
        f"line: {done}/100 points" for done in range(10, 101, 10)
    ]
    assert said[-1].endswith("/s, 0 s left")


def test_what_is_finished_is_said_to_be_in_the_log_and_no_more():
    said = []
    with progress.Progress(said.append, "point", "line") as shown:
        shown.points(100, 100)
        shown.points(100, 100)
    assert said == ["line: 100 of 100 points are in the log"]


@pytest.mark.parametrize("landscape", [False, True])
def test_the_bar_shows_tokens_best_and_base(landscape, capsys):
    with progress.Progress(progress.quiet, name="line" if landscape else "") as shown:
        shown.terminal = True
        if landscape:
            shown.points(10, 20)
            shown.points(20, 20)
        else:
            shown(SearchProgress(0, 20, None, 0.25, 0))
            shown(SearchProgress(20, 20, 0.5, 0.25, 6000))
    text = capsys.readouterr().err
    assert "20/20" in text
    assert ("line: " if landscape else "tokens/s, best 0.5, base 0.25") in text


def test_what_is_said_goes_beside_the_results(capsys):
    progress.say("one line")
    progress.quiet("none")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "one line\n")


def test_a_phase_is_said_once_and_what_is_silent_goes_on(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 0.02)
    said = []
    with progress.Progress(said.append, name="line") as shown:
        shown.phase("compiling")
        end = time.monotonic() + 10
        while len(said) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        shown(SearchProgress(3, 20, None, None, None, "answering", "answer"))
        while "still answering" not in said[-1] and time.monotonic() < end:
            time.sleep(0.01)
    assert said[0] == "line: compiling"
    assert said[1].startswith("line: still compiling, ") and said[1].endswith(" s")
    assert "line: answering: 20 answers" in said
    assert said[-1].startswith("line: still answering, 3/20 answers, ")
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count  # it ends with the block
