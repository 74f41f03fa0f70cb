"""Several processes give what one gives; only process 0 writes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import process_run
import pytest
from child_settings import COMPILED

HELPERS = pathlib.Path(__file__).parent / "helpers"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments):
    search = os.pathsep.join([str(HELPERS), str(HELPERS.parent)])
    return subprocess.Popen(
        [sys.executable, str(HELPERS / "process_run.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search, **COMPILED},
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2000:]
    (line,) = [x for x in out.splitlines() if x.startswith("SUMMARY ")]
    return json.loads(line.removeprefix("SUMMARY "))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same search by two processes of four devices, and by one with eight."""
    folders, port = [tmp_path_factory.mktemp("run") for _ in range(2)], free_port()
    # First, so that the others find the programs that are not theirs alone.
    found = {"8": process_run.search(None, "pmap")}
    two = [start(folders[n], 4, port, 2, n) for n in range(2)]
    return found | {"first": finish(two[0]), "second": finish(two[1])}


@pytest.mark.slow
def test_two_processes_equal_one_with_eight_devices(runs):
    """Which equals one with one device: test_laws.py."""
    reference = runs["first"]
    for name in ("second", "8"):
        other = runs[name]
        assert other["bits"] == reference["bits"]
        assert other["experts"] == reference["experts"]
        assert other["votes"] == reference["votes"]
        np.testing.assert_allclose(other["values"], reference["values"], rtol=1e-5)
    assert reference["table"]["ensemble"] == runs["8"]["table"]["ensemble"]


@pytest.mark.slow
def test_only_process_zero_writes_and_it_writes_everything(runs):
    assert runs["second"]["process"] == 1 and runs["second"]["wrote"] == []
    wanted = {"config.json", "experts.json", "items.npz", "log", "results.json", "report.html"}
    assert wanted <= set(runs["first"]["wrote"])


def command(index, port, out, *words):
    """One of two processes of `thicket run signals`."""
    program = "import sys; from thicket_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["--pretrain", "xavier", "--train-items", "4", "--test-items", "4", "--k", "2", *words]
    words += ["--cpu-devices", "1", "--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
    words += ["--process-id", str(index), "--cache", str(out / "cache"), "--out", str(out / "run")]
    return subprocess.Popen(
        [sys.executable, "-c", program, "run", "signals", *words, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HELPERS.parents[1]), **COMPILED},
    )


@pytest.mark.slow
def test_processes_that_were_told_different_things_end_and_name_them(tmp_path):
    port = free_port()
    words = ("--num", "4"), ("--num", "6", "--sigma", "0.3", "--select", "halving")
    two = [command(i, port, tmp_path, *words[i]) for i in range(2)]
    for process in two:
        _, err = process.communicate(timeout=240)
        line = err.splitlines()[-1]
        assert process.returncode == 2, err[-2000:]
        assert line.startswith("thicket: the processes disagree: options.num is 4 in process 0 and")
        assert "options.sigma is" in line and "select" in line
    assert not (tmp_path / "run").exists()
