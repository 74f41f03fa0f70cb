"""The command line as a user types it: runs, resumes, reports, exports, and bad input."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from child_settings import COMPILED

import thicket_jax as tj
from thicket_jax.cli.main import COMMANDS, main
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.mapping import blocks
from thicket_jax.runs import checkpoints

TINY = ["--pretrain", "xavier", "--num", "24", "--train-items", "8", "--test-items", "8"]
TINY += ["--k", "1,4", "--sigma", "0.05,0.1", "--block-size", "1"]


def thicket(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run of signals."""
    folder = tmp_path_factory.mktemp("cli")
    out = folder / "run"
    assert thicket("run", "signals", *TINY, "--out", out, "--cache", folder / "cache") == 0
    return out


def test_a_run_writes_what_the_design_lists(run):
    results = json.loads((run / "results.json").read_text())
    assert set(results) >= {
        "task", "model", "num", "k", "sigma", "noise", "seed", "metric", "higher_is_better",
        "base", "best", "ensemble", "density", "failed", "timing", "provenance",
    }  # fmt: skip
    assert results["num"] == 24 and results["k"] == [1, 4] and results["sigma"] == [0.05, 0.1]
    assert {(row["k"], row["combine"]) for row in results["ensemble"]} >= {(1, "mean"), (4, "mean")}
    experts = json.loads((run / "experts.json").read_text())["experts"]
    assert len(experts) == 24
    assert set(experts[0]) == {"id", "sigma", "sign", "score", "failed", "rank"}
    with np.load(run / "items.npz") as items:
        assert items["train"].shape == (24, 8) and items["train"].dtype == np.float32
        assert items["answers"].shape == (4, 8, 60) and items["base_answers"].shape == (8, 60)
    for name in ("config.json", "report.md", "report.html", "log", "figures"):
        assert (run / name).exists()
    assert list((run / "figures").glob("*.png"))


def test_the_ensemble_of_one_is_the_best_expert(run):
    results = json.loads((run / "results.json").read_text())
    row = next(r for r in results["ensemble"] if r["k"] == 1 and r["combine"] == "mean")
    assert row["test"] == results["best"]["test"]


def test_tasks_lists_the_tasks(capsys):
    assert thicket("tasks") == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["signals", "digits", "countdown", "gsm8k", "math500", "olympiadbench", "mbpp"]
    names += ["rocstories", "uspto50k", "stories", "qa"]
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.usefixtures("undrawn")
def test_report_sweeps_k_from_the_log_alone(run, tmp_path, capsys, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "log")
    monkeypatch.setattr(blocks, "expert_map", None)
    assert thicket("report", copy, "--k", "1,2,3", "--vote", "median") == 0
    rows = json.loads((copy / "results.json").read_text())["ensemble"]
    assert [(row["k"], row["combine"]) for row in rows] == [(k, "median") for k in (1, 2, 3)]
    assert "ensemble of 3, median" in capsys.readouterr().out


def test_export_writes_the_bits_that_were_scored(run, tmp_path):
    assert thicket("export", run, "--rank", 2, "--to", tmp_path / "second") == 0
    assert thicket("export", run, "--merge", 3, "--to", tmp_path / "merged") == 0
    from thicket_jax.runs import export
    from thicket_jax.tasks.signals import task as signals

    config = json.loads((run / "config.json").read_text())["options"]
    options = signals.Options(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    )
    params = signals.build(options).problem.params
    experts = export.load_population(run)
    expected = jax.tree.leaves(tj.perturb(params, experts[1]))
    found = jax.tree.leaves(checkpoints.load(tmp_path / "second"))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
    merged = jax.tree.leaves(checkpoints.load(tmp_path / "merged"))
    for a, b in zip(jax.tree.leaves(tj.merge(params, experts[:3])), merged, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


@pytest.mark.usefixtures("undrawn")
def test_resume_from_the_command_line(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = json.loads((copy / "results.json").read_text())
    for name in ("results.json", "experts.json", "items.npz"):
        (copy / name).unlink()
    shutil.rmtree(sorted((copy / "log").glob("experts_*"))[-1])
    assert thicket("resume", copy) == 0
    after = json.loads((copy / "results.json").read_text())
    for results in (before, after):
        results.pop("timing"), results.pop("provenance")
    assert after == before
    assert "of 24 experts are in the log" in capsys.readouterr().err
    assert thicket("resume", copy) == 2
    assert "is finished" in capsys.readouterr().err


BAD = {
    "unknown task": (["run", "sinals"], "unknown task 'sinals'; choose one of: countdown, digits"),
    "no task": (["run"], "needs a task (signals, digits, countdown, "),
    "unknown command": (["runn"], "unknown command 'runn'; choose one of: tasks, run"),
    "unknown option": (["run", "signals", "--nun", "5"], "--nun"),
    "num is no number": (["run", "signals", "--num", "many"], "--num"),
    "k is no list": (["run", "signals", "--k", "1;5"], "'1;5' is not a comma-separated list"),
    "k above num": (["run", "signals", "--num", "5", "--k", "9"], "k=9 is larger than num=5"),
    "k zero": (["run", "signals", "--k", "0"], "k=0 must be a whole number of at least 1"),
    "num zero": (["run", "signals", "--num", "0"], "num=0"),
    "sigma zero": (["run", "signals", "--sigma", "0"], "sigma=0 must be positive and finite"),
    "sigma negative": (["run", "signals", "--sigma=-1"], "sigma=-1 must be positive"),
    "sigma nan": (["run", "signals", "--sigma", "nan"], "sigma=nan must be positive"),
    "unknown family": (["run", "signals", "--pretrain", "lines"], "lines"),
    "unknown target": (["run", "signals", "--target", "cosine"], "cosine"),
    "unknown noise": (["run", "signals", "--noise", "cauchy"], "noise='cauchy' is unknown"),
    "rank of dense noise": (["run", "signals", "--rank", "2"], "belong to noise='low_rank'"),
    "no rank": (["run", "signals", "--noise", "low_rank", "--rank", "0"], "rank=0 must be a whole"),
    "unknown factors": (
        ["run", "signals", "--noise", "low_rank", "--factors", "cauchy"],
        "factors='cauchy' is unknown; choose one of: gaussian, rademacher",
    ),
    "no leaf matches": (["run", "signals", *TINY, "--where", "attention"], "matches none of the"),
    "bad expression": (["run", "signals", "--where", "("], "is not a regular expression"),
    "refused prng": (["run", "signals", "--prng", "rbg"], "prng='rbg' is refused"),
    "bad backend": (["run", "signals", *TINY, "--backend", "vmap"], "backend='vmap' is unknown"),
    "bad block": (["run", "signals", "--block-size", "big"], "must be a whole number"),
    "half a cluster": (["run", "signals", "--processes", "2"], "go together"),
    "too few items": (
        ["run", "digits", "--train-items", "5000"],
        "5000",
    ),
    "no run": (["resume", "nowhere"], "nowhere/config.json is missing"),
    "no report": (["report", "nowhere"], "nowhere"),
    "export what": (["export", "nowhere", "--to", "x"], "either --rank or --merge"),
}


@pytest.mark.parametrize(("words", "found"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line_and_nothing_is_written(words, found, tmp_path, capsys):
    out = tmp_path / "run"
    if words[0] == "run" and len(words) > 1:
        words = [*words, "--out", str(out), "--cache", str(tmp_path / "cache"), "--quiet"]
    assert thicket(*words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("thicket: ")
    assert found in lines[0]
    assert not out.exists() and captured.out == ""


def test_an_existing_run_directory_is_refused(run, capsys):
    before = (run / "results.json").read_bytes()
    assert thicket("run", "signals", *TINY, "--out", run) == 2
    assert "exists; resume it" in capsys.readouterr().err
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--rank", "99"], "has 24 experts that did not fail, not 99"),
        (["--rank", "0"], "rank=0 must be a whole number"),
        (["--rank", "1", "--merge", "2"], "either --rank or --merge"),
    ],
)
def test_bad_exports(run, tmp_path, capsys, words, found):
    assert thicket("export", run, *words, "--to", tmp_path / "x") == 2
    assert found in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--k", "500"], "k=500"),
        (["--vote", "majority"], "majority"),
        (["--vote", "majority_vote"], "majority_vote"),
    ],
)
def test_bad_reports(run, capsys, words, found):
    before = (run / "results.json").read_bytes()
    assert thicket("report", run, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and found in lines[0]
    assert (run / "results.json").read_bytes() == before


def test_help_names_the_options(capsys):
    assert thicket("run", "signals", "--help") == 0
    text = capsys.readouterr().out
    for option in ("--num", "--k", "--sigma", "--noise", "--pretrain", "--block-size", "--out"):
        assert option in text
    assert thicket("--help") == 0 and thicket() == 2


HELP = [
    (["run"], ("--num", "--seed", "--select", "--block-size", "--out", "olympiadbench")),
    (["run", "digits"], ("--num", "--condition", "--select", "--block-size", "--out")),
    (["density"], ("--margins", "--out")),
    (["landscape"], ("--plane", "--points", "--ranks")),
    (["landscape", "nowhere"], ("--plane", "--points", "--ranks")),
]
for name in ([], ["nowhere"]):
    HELP += [
        (["resume", *name], ("--block-size", "--backend", "--quiet")),
        (["report", *name], ("--k", "--vote")),
        (["export", *name], ("--to", "--rank", "--merge")),
    ]


@pytest.mark.parametrize(("words", "listed"), HELP, ids=[" ".join(words) for words, _ in HELP])
def test_help_lists_the_options_with_and_without_a_name(words, listed, capsys):
    for flag in ("--help", "-h"):
        assert thicket(*words, flag) == 0
        captured = capsys.readouterr()
        assert f"usage: thicket {words[0]} " in captured.out and captured.err == ""
        assert [option for option in listed if option not in captured.out] == []


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (None, 0, ""),
        (RunError("a run\nis damaged"), 2, "thicket: a run is damaged\n"),
        (ArgumentError("wrong"), 2, "thicket: wrong\n"),
        (KeyboardInterrupt(), 130, "thicket: interrupted\n"),
        (KeyboardInterrupt("go on"), 130, "thicket: interrupted; go on\n"),
    ],
)
def test_exit_codes(raised, code, says, monkeypatch, capsys):
    def command(words):
        assert words == ["a", "--b"]
        if raised is not None:
            raise raised

    monkeypatch.setitem(COMMANDS, "report", command)
    assert thicket("report", "a", "--b") == code
    assert capsys.readouterr().err == says


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def command(words):
        raise ZeroDivisionError

    monkeypatch.setitem(COMMANDS, "report", command)
    with pytest.raises(ZeroDivisionError):
        thicket("report")


def test_the_usage_names_every_command(capsys):
    assert thicket("help") == 0
    text = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  thicket {name} " not in text] == []


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_scored_and_says_how_to_resume(tmp_path):
    """A signal in a real process, once two segments of the log are there.

    The other signals, and what is resumed after them, are in test_system.
    """
    run = tmp_path / "run"
    root = pathlib.Path(__file__).parents[2]
    words = ["run", "signals", "--pretrain", "xavier", "--num", "2000", "--k", "4"]
    words += ["--train-items", "8", "--test-items", "8", "--block-size", "4", "--out", str(run)]
    # A background job of a shell ignores Ctrl-C, and its children inherit that.
    program = "import signal, sys; from thicket_jax.cli.main import main; "
    program += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words, "--cache", str(tmp_path.parent / "interrupted")],
        env={**os.environ, **COMPILED, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        while len(list((run / "log").glob("experts_*[0-9]"))) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == (
        f"thicket: interrupted; what is scored is kept; go on with: thicket resume {run}"
    )
    assert "Traceback" not in err
