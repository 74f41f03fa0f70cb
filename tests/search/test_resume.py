"""A killed run goes on to the same result; a changed or damaged one is refused by name."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import killed_run
import models
import numpy as np
import pytest
from child_settings import COMPILED

import thicket_jax as tj
from thicket_jax.errors import RunError, ThicketError
from thicket_jax.runs import log as run_log

HELPERS = pathlib.Path(__file__).parents[1] / "helpers"
pytestmark = pytest.mark.usefixtures("undrawn")


def content(run_dir):
    """Everything in a run that must be equal: experts, outcomes, answers and the table."""
    experts = json.loads((run_dir / "experts.json").read_text())
    results = json.loads((run_dir / "results.json").read_text())
    results.pop("timing"), results.pop("provenance")
    with np.load(run_dir / "items.npz") as items:
        arrays = {name: items[name].tobytes() for name in items.files}
    return experts, results, arrays


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, and its parent folder."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    killed_run.search(run_dir, 0, False)
    return run_dir


@pytest.fixture
def interrupted(finished, tmp_path):
    """A copy of the run as a kill after 32 of 100 experts leaves it."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    for name in ("experts.json", "results.json", "items.npz", "report.md", "report.html"):
        (run_dir / name).unlink()
    for segment in (run_dir / "log").glob("experts_*"):
        if int(segment.name.split("_")[1]) >= 30:
            shutil.rmtree(segment)
    return run_dir


@pytest.mark.slow
def test_kill_minus_nine_and_resume_equals_the_uninterrupted_run(finished, tmp_path):
    run_dir = tmp_path / "run"
    script = [sys.executable, str(HELPERS / "killed_run.py"), str(run_dir)]
    search = os.pathsep.join([str(HELPERS), str(HELPERS.parent)])
    with subprocess.Popen(
        [*script, "0.3", "new"],
        env={**os.environ, **COMPILED, "PYTHONPATH": search},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while len(list((run_dir / "log").glob("experts_*[0-9]"))) < 3:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len(list((run_dir / "log").glob("experts_*[0-9]")))
    assert 3 <= kept < 20 and not (run_dir / "results.json").exists()
    killed_run.search(run_dir, 0, True)
    assert content(run_dir) == content(finished)


def test_resume_scores_only_what_is_missing(interrupted, finished, monkeypatch):
    scored = []
    real = killed_run.models.logits

    def counted(params, batch):
        return real(params, batch)

    monkeypatch.setattr(killed_run.models, "logits", counted)
    original = run_log.RunLog.append

    def append(self, start, scores, seconds):
        scored.append((start, len(scores)))
        original(self, start, scores, seconds)

    monkeypatch.setattr(run_log.RunLog, "append", append)
    killed_run.search(interrupted, 0, True)
    assert min(start for start, _ in scored) == 32 and sum(n for _, n in scored) == 68
    assert content(interrupted) == content(finished)


def test_a_segment_is_written_at_least_every_five_percent(finished):
    """Or every eight experts, which the eight devices score at once."""
    names = sorted(p.name for p in (finished / "log").glob("experts_*"))
    spans = [tuple(map(int, name.split("_")[1:])) for name in names]
    assert spans[0][0] == 0 and spans[-1][1] == 100
    assert all(stop - start <= 8 for start, stop in spans)


def test_a_half_written_segment_is_dropped_and_scored_again(interrupted, finished):
    half = interrupted / "log" / "experts_00000032_00000040.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "part").write_text("half")
    killed_run.search(interrupted, 0, True)
    assert not half.exists()
    assert content(interrupted) == content(finished)


def test_a_missing_segment_in_the_middle_is_scored_again(interrupted, finished):
    shutil.rmtree(interrupted / "log" / "experts_00000008_00000016")
    killed_run.search(interrupted, 0, True)
    assert content(interrupted) == content(finished)


def damage(path):
    """Flips the bytes of the largest file below `path`."""
    victim = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2 :] = bytes(255 - b for b in data[len(data) // 2 :])
    victim.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied"])
def test_a_damaged_segment_is_named(interrupted, how):
    segment = sorted((interrupted / "log").glob("experts_*"))[1]
    if how == "flipped":
        damage(segment)
    elif how == "truncated":
        for path in segment.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:10])
    else:
        shutil.rmtree(segment)
        segment.mkdir()
    with pytest.raises(RunError, match=f"{segment.name} is damaged: .* delete that folder") as e:
        killed_run.search(interrupted, 0, True)
    assert "\n" not in str(e.value)
    shutil.rmtree(segment)
    killed_run.search(interrupted, 0, True)


def test_a_damaged_config_is_named(interrupted):
    text = (interrupted / "config.json").read_text()
    (interrupted / "config.json").write_text(text[: len(text) // 2])
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        killed_run.search(interrupted, 0, True)


def test_a_missing_log_is_never_a_silent_restart(interrupted):
    shutil.rmtree(interrupted / "log")
    with pytest.raises(RunError, match=r"log is missing"):
        killed_run.search(interrupted, 0, True)


def test_an_edited_option_is_refused(interrupted):
    path = interrupted / "config.json"
    config = json.loads(path.read_text())
    config["options"]["num"] = 90
    path.write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"options\.num was 90, is now 100"):
        killed_run.search(interrupted, 0, True)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"params": True}, r"fingerprints\.params was"),
        ({"batch": True}, r"fingerprints\.train was"),
        ({"k": (1, 9)}, r"options\.k was \[1, 10\], is now \[1, 9\]"),
        ({"key": 2}, r"key was \[0, 1\], is now \[0, 2\]"),
    ],
    ids=["params", "data", "option", "key"],
)
def test_a_changed_run_is_refused_and_says_what_differs(interrupted, change, found, monkeypatch):
    params, batch = models.params(), models.images()
    if "params" in change:
        params["half"] = params["half"] + params["half"].dtype.type(1)
    if "batch" in change:
        batch["image"] = batch["image"].at[0, 0].add(1)
    monkeypatch.setattr(killed_run.models, "params", lambda: params)
    monkeypatch.setattr(killed_run.models, "images", lambda: batch)
    real = tj.randopt

    def changed(*arguments, **options):
        if "k" in change:
            options["k"] = change["k"]
        if "key" in change:
            options["key"] = jax.random.key(change["key"])
        return real(*arguments, **options)

    monkeypatch.setattr(tj, "randopt", changed)
    before = sorted(p.name for p in (interrupted / "log").iterdir())
    with pytest.raises(RunError, match=f"is a different run .*{found}") as caught:
        killed_run.search(interrupted, 0, True)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in (interrupted / "log").iterdir()) == before


def test_a_finished_run_says_so(finished):
    with pytest.raises(RunError, match="is finished; thicket report"):
        killed_run.search(finished, 0, True)


def test_an_existing_run_directory_is_not_overwritten(interrupted, tmp_path):
    with pytest.raises(RunError, match="exists; resume it"):
        killed_run.search(interrupted, 0, False)
    other = tmp_path / "notes"
    other.mkdir()
    (other / "important.txt").write_text("mine")
    with pytest.raises(RunError, match="not an empty directory"):
        killed_run.search(other, 0, False)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ThicketError, match=r"config\.json is missing; is .* a run directory"):
        killed_run.search(tmp_path / "nothing", 0, True)
