"""A search that is killed at any write, rename or mkdir goes on exactly, or counts as new."""

import builtins
import collections
import errno
import fcntl
import hashlib
import io
import os
import resource
import shutil
import signal
import socket

import numpy as np
import pytest
import sealed_runs

from thicket_jax.cli.main import main
from thicket_jax.errors import RunError
from thicket_jax.reports import figures
from thicket_jax.runs import checkpoints, digests, files, interrupts, lock
from thicket_jax.runs import log as run_log
from thicket_jax.runs import record as run_record
from thicket_jax.scoring.resuming import score_missing

FOUND = ("config.json", "experts.json", "items.npz", "results.json", "report.html")
CHANGES = ["mkdir", "rename", "replace", "link", "symlink", "unlink", "rmdir"]
CHANGES += ["open", "write", "truncate", "ftruncate", "fsync"]
OPERATIONS = [*((os, name) for name in CHANGES), (builtins, "open"), (io, "open")]


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda *_: [])


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class PlainFolders:
    """In Orbax's place where a test saves hundreds of times: an npz file in a folder."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def save(self, path, tree):
        path.mkdir()
        np.savez(path / "arrays.npz", **tree)

    def restore(self, path):
        with np.load(path / "arrays.npz") as file:
            return dict(file)


@pytest.fixture
def plain_folders(monkeypatch):
    monkeypatch.setattr(checkpoints, "_checkpointer", PlainFolders)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # counted as the others, without the disk


@pytest.fixture(scope="module")
def whole():
    """What is searched; its results are computed once, as they are always the same."""
    run = sealed_runs.whole_record()
    table = sealed_runs.build_results(run)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sealed_runs, "build_results", lambda _: table)
        yield run


@pytest.fixture
def finished(whole, tmp_path):
    run = sealed_runs.search(whole, tmp_path / "whole")
    return {name: (run / name).read_bytes() for name in FOUND}


def watched(monkeypatch, before):
    """Calls `before(name)` before every operation that changes what is on the disk."""
    for module, name in OPERATIONS:
        real = getattr(module, name)

        def call(*arguments, real=real, name=name, **options):
            if name != "open" or writes(*arguments[1:], **options):
                before(name)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)


def writes(mode="r", *_, **options):
    """Whether arguments of an `open` make or change a file."""
    mode = options.get("mode", options.get("flags", mode))
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(mode & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))


def state(folder):
    """A digest of names and contents below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}|".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def states_on_the_way(work, folder, to):
    """What a kill at each operation of `work` leaves of a folder, each different one once.

    A file that is being written is there whole, half and empty. Returns them, and how many
    operations there were of each name.
    """
    found, busy, count = {}, [], collections.Counter()

    def keep(name):
        if busy:
            return
        busy.append(True)
        count[name] += 1
        try:
            mark = state(folder)
            if mark not in found:
                found[mark] = to / str(len(found))
                shutil.copytree(folder, found[mark])
        except FileNotFoundError:  # Orbax's threads write meanwhile; the next one is kept
            found.pop(mark, None)
        finally:
            busy.clear()

    with pytest.MonkeyPatch.context() as patched:
        watched(patched, keep)
        work()
    states = list(found.values())
    for whole in found.values():
        for path in whole.rglob(f"*{files.TEMPORARY}"):
            if path.stat().st_size:
                states.append(to / str(len(states)))
                shutil.copytree(whole, states[-1])
                os.truncate(states[-1] / path.relative_to(whole), path.stat().st_size // 2)
    return states, count


def go_on(whole, run):
    """Runs or resumes, as whoever finds the directory would; returns what was found."""
    began = (run / "config.json").exists()
    if not digests.is_finished(run):
        if not began:
            run_log.check_new(run)
        sealed_runs.search(whole, run, resume=began)
    run_record.load(run)
    return {name: (run / name).read_bytes() for name in FOUND}


def test_a_kill_at_any_operation_loses_nothing(plain_folders, whole, finished, tmp_path):
    (tmp_path / "killed").mkdir()

    def search():
        sealed_runs.search(whole, tmp_path / "killed" / "run")

    states, count = states_on_the_way(search, tmp_path / "killed", tmp_path / "states")
    assert len(states) > 40 and set(count) >= {"mkdir", "open", "fsync", "replace", "rename"}
    for killed in states:
        assert go_on(whole, killed / "run") == finished, killed
        assert not list(killed.rglob("*tmp*")), "nothing half written is left"


def test_a_kill_inside_orbax_loses_nothing(whole, tmp_path):
    log = sealed_runs.log_of(whole, tmp_path / "run")

    def save():
        log.append(0, sealed_runs.scores_of(whole, 0, 5), 1.0)

    states, _ = states_on_the_way(save, tmp_path / "run", tmp_path / "states")
    assert len(states) > 4
    for killed in states:
        again = sealed_runs.log_of(whole, killed, resume=True)
        for _, scores, _ in again.segments():
            assert scores.values.tolist() == log_values(whole)
        if not any(again.segments()):
            again.append(0, sealed_runs.scores_of(whole, 0, 5), 1.0)
            again.flush()
        assert [path.name for path in (killed / "log").iterdir() if path.is_dir()] == [
            "experts_00000000_00000005"
        ]
        again.close()


def log_values(whole):
    return sealed_runs.scores_of(whole, 0, 5).values.tolist()


def test_a_full_disk_at_any_operation_loses_nothing(plain_folders, whole, finished, tmp_path):
    """What fails is one error of the system, and the next start goes on."""
    count = 0

    def number(_):
        nonlocal count
        count += 1

    with pytest.MonkeyPatch.context() as patched:
        watched(patched, number)
        sealed_runs.search(whole, tmp_path / "run")
    failed = 0
    for full_at in range(1, count + 1):
        run, left = tmp_path / f"full{full_at}" / "run", [full_at]

        def fail(name, left=left):
            left[0] -= 1
            if left[0] <= 0 and name not in ("unlink", "rmdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patched:
            watched(patched, fail)
            try:
                sealed_runs.search(whole, run)
            except (OSError, RunError):
                failed += 1
        assert go_on(whole, run) == finished, full_at
    assert failed >= count - 2 > 60  # what takes something away does not fail


def test_what_storage_cannot_write_is_one_error_of_the_system(tmp_path, capfd):
    """And neither Orbax nor its threads say anything."""
    tree, limits = {"x": np.random.default_rng(0).random(20_000)}, resource.RLIMIT_FSIZE
    before = resource.getrlimit(limits)
    resource.setrlimit(limits, (40_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoints.save(tmp_path / "x", tree)
    finally:
        resource.setrlimit(limits, before)
    assert caught.value.errno == errno.EFBIG and capfd.readouterr().err == ""
    assert not (tmp_path / "x").exists()
    checkpoints.save(tmp_path / "x", tree)
    np.testing.assert_array_equal(checkpoints.load(tmp_path / "x")["x"], tree["x"])


def test_two_at_once_are_one_and_a_line_that_names_it(whole, tmp_path):
    log = sealed_runs.log_of(whole, tmp_path / "run")
    says = rf"in use by process {os.getpid()} on \S+; wait until it ends"
    with pytest.raises(RunError, match=says):
        sealed_runs.log_of(whole, tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=says):
        lock.Lock.check(tmp_path / "run")
    log.close()
    sealed_runs.log_of(whole, tmp_path / "run", resume=True).close()
    assert not (tmp_path / "run" / "lock").exists()


def test_a_lock_of_a_dead_process_is_free_and_one_of_another_host_is_named(tmp_path):
    (tmp_path / "lock").write_text("process 7 on elsewhere\n")
    with open(tmp_path / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use by process 7 on elsewhere; wait"):
            lock.Lock(tmp_path)
    taken = lock.Lock(tmp_path)
    assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    taken.release()
    assert not list(tmp_path.iterdir())


def test_what_a_kill_at_birth_leaves_cannot_be_resumed_and_says_what_to_do(
    whole, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_log, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            sealed_runs.log_of(whole, run)
    assert (run / "log" / "identity.json").exists()
    assert main(["resume", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"thicket: {run} has nothing to go on with yet; start it with thicket run"
    sealed_runs.search(whole, run)
    run_record.load(run)


def test_two_births_at_once_are_one(whole, tmp_path, monkeypatch):
    real, second = run_log.check_new, []

    def late(run_dir):
        real(run_dir)
        if not second:
            second.append(True)
            second.append(sealed_runs.log_of(whole, run_dir))

    monkeypatch.setattr(run_log, "check_new", late)
    with pytest.raises(RunError, match="in use by process"):
        sealed_runs.log_of(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_inside_a_save_waits_for_it(name, whole, tmp_path):
    number, real = getattr(signal, name), os.fsync
    log = sealed_runs.log_of(whole, tmp_path / "run")
    log.append(0, sealed_runs.scores_of(whole, 0, 2), 1.0)

    def signalled(file):
        signal.raise_signal(number)
        real(file)

    with (
        interrupts.ending(),
        pytest.raises(KeyboardInterrupt) as caught,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(os, "fsync", signalled)
        log.append(2, sealed_runs.scores_of(whole, 2, 5), 1.0)
    assert getattr(caught.value, "signum", signal.SIGINT) == number
    log.flush()
    assert [start for start, _, _ in log.segments()] == sorted({0, log._start})
    assert sum(len(scores) for _, scores, _ in log.segments()) == 5


def test_a_second_ctrl_c_while_the_first_one_saves_loses_nothing(whole, tmp_path, monkeypatch):
    log, real, came = sealed_runs.log_of(whole, tmp_path / "run"), os.fsync, []
    log._most = 100

    def stream(begin, end):
        for i in range(begin, end):
            yield i - begin, sealed_runs.scores_of(whole, i, i + 1)

    def interrupt(*_):
        came.append(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    def fsync(file):
        interrupt()
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        score_missing(stream, 5, log, lambda now: now.done.sum() == 3 and interrupt())
    assert len(came) > 2
    ((start, scores, _),) = log.segments()
    assert (start, len(scores)) == (0, 3)
    log.close()


def test_a_signal_in_a_json_file_leaves_it_whole(tmp_path, monkeypatch):
    real = os.replace

    def signalled(*paths):
        signal.raise_signal(signal.SIGINT)
        real(*paths)

    monkeypatch.setattr(os, "replace", signalled)
    with pytest.raises(KeyboardInterrupt):
        files.write_json(tmp_path / "x.json", {"new": 1})
    assert files.read_json(tmp_path / "x.json") == {"new": 1}
    assert len(list(tmp_path.iterdir())) == 1
