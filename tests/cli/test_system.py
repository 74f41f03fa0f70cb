"""What the system does to a command: signals, full disks, places that cannot be written."""

import errno
import json
import os
import pathlib
import shutil
import signal
import typing

import pytest

from thicket_jax.cli import progress
from thicket_jax.cli.main import COMMANDS, main
from thicket_jax.reports import documents
from thicket_jax.runs import files, strings

TINY = ["--pretrain", "xavier", "--num", "6", "--train-items", "6", "--test-items", "4", "--k"]
TINY += ["1,3", "--sigma", "0.05", "--block-size", "1", "--backend", "none", "--quiet"]
FOUND = ("experts.json", "items.npz")
pytestmark = pytest.mark.usefixtures("undrawn")


def run_signals(out):
    return main(["run", "signals", *TINY, "--cache", str(out.parent / "cache"), "--out", str(out)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    assert run_signals(run) == 0
    return run


def stops(monkeypatch, action):
    """Lets a search do `action` once it has scored some."""
    real, done = progress.Progress.__call__, []

    def call(self, now):
        real(self, now)
        if now.done >= 3 and not done:
            done.append(True)
            action()

    monkeypatch.setattr(progress.Progress, "__call__", call)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_search_as_ctrl_c_does(name, code, finished, tmp_path, monkeypatch, capsys):
    run, before = tmp_path / "run", signal.getsignal(getattr(signal, name))
    with monkeypatch.context() as patched:
        stops(patched, lambda: signal.raise_signal(getattr(signal, name)))
        assert run_signals(run) == code
    said = capsys.readouterr().err
    assert said == (
        f"thicket: interrupted; what is scored is kept; go on with: thicket resume {run}\n"
    )
    assert signal.getsignal(getattr(signal, name)) == before
    assert main(["resume", str(run), "--backend", "none", "--quiet"]) == 0
    for file in FOUND:
        assert (run / file).read_bytes() == (finished / file).read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_ignored_signal_stays_ignored(command, monkeypatch, capsys):
    """As under nohup."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setitem(COMMANDS, command, lambda _: signal.raise_signal(signal.SIGHUP))
        assert main([command]) == 0
    finally:
        signal.signal(signal.SIGHUP, old)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def test_a_full_disk_in_the_middle_is_one_line_and_the_run_goes_on(
    finished, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        stops(patched, lambda: patched.setattr(os, "fsync", full))
        assert run_signals(run) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "thicket: a file: No space left on device; what is scored is kept; go on with: "
        f"thicket resume {run}"
    )
    assert main(["resume", str(run), "--backend", "none", "--quiet"]) == 0
    for file in FOUND:
        assert (run / file).read_bytes() == (finished / file).read_bytes()


def test_a_full_disk_in_a_report_or_an_export_is_one_line(finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for words in (["report", run], ["export", run, "--rank", "1", "--to", tmp_path / "to"]):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            assert main([*map(str, words)]) == 1
        *_, line = capsys.readouterr().err.splitlines()
        assert "No space left on device" in line and f"{run} is as it was" in line
        assert main([*map(str, words)]) == 0
        capsys.readouterr()


def forbidden(monkeypatch, place):
    """Lets nothing be made below `place`, as on a read-only file system, also for root."""
    for name in ("mkdir", "open"):
        real = getattr(os, name)

        def call(path, *rest, real=real, **options):
            flags = rest[0] if rest else 0
            writes = real is not os_open or flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            if str(path).startswith(str(place)) and writes:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *rest, **options)

        monkeypatch.setattr(os, name, call)


os_open = os.open


def test_places_that_cannot_be_written_are_refused_before_the_work(
    finished, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "read-only").mkdir()
    forbidden(monkeypatch, tmp_path / "read-only")
    for place in (tmp_path / "file" / "run", tmp_path / "read-only" / "run", "/proc/run"):
        for words in (
            ["run", "signals", *TINY, "--cache", tmp_path / "cache", "--out", place],
            ["density", "signals", *TINY, "--cache", tmp_path / "cache", "--out", place],
            ["export", finished, "--rank", "1", "--to", place],
            ["report", finished, "--to", place],
        ):
            assert main([*map(str, words)]) == 2, words
            (line,) = capsys.readouterr().err.splitlines()
            assert str(place) in line and "Traceback" not in line
    assert not (tmp_path / "cache").exists(), "nothing was prepared"


def test_a_read_only_run_is_reported_elsewhere(finished, tmp_path, monkeypatch, capsys):
    run, to = tmp_path / "run", tmp_path / "to"
    shutil.copytree(finished, run)
    before = {path: path.stat().st_mtime_ns for path in [run, *run.rglob("*")]}
    (run / "results.json").rename(tmp_path / "results.json")
    before.pop(run / "results.json")
    forbidden(monkeypatch, run)
    assert main(["resume", str(run)]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    (tmp_path / "results.json").rename(run / "results.json")
    before[run / "results.json"] = (run / "results.json").stat().st_mtime_ns
    before[run] = run.stat().st_mtime_ns
    for command in ("report", "landscape"):
        assert main([command, str(run)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "Read-only file system" in line
        assert line.endswith("is reported with --to DIR") == (command == "report")
    assert main(["report", str(run), "--to", str(to)]) == 0
    assert f"report: {to / 'report.html'}" in capsys.readouterr().out
    assert (to / "report.html").exists() and (to / "figures").is_dir()
    assert {path: path.stat().st_mtime_ns for path in [run, *run.rglob("*")]} == before
    assert main(["report", str(run), "--to", str(run)]) == 2


def test_a_grader_inside_a_run_is_not_imported(finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "results.json").unlink()
    (run / "manifest.json").unlink()
    (run / "evil.py").write_text("raise SystemExit('imported')\n")
    value = json.loads((run / "config.json").read_text())
    del value["digests"]  # as an older release wrote it, or somebody who wants it imported
    monkeypatch.chdir(run)
    for grader in (f"{run / 'evil.py'}:grade", "run:evil.py:grade", "evil:grade", "evil.py:grade"):
        value["options"]["grader"] = grader
        (run / "config.json").write_text(json.dumps(value))
        assert main(["resume", str(run)]) == 2
        assert "lies inside" in capsys.readouterr().err


def test_records_hold_no_absolute_paths(finished):
    """No file of a run says where it was made, nor where the program lies."""
    places = (finished.parent, pathlib.Path.home(), pathlib.Path(__file__).parents[2])
    for path in (path for path in finished.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert not [x for x in places if f"{x}/".encode() in data], path.relative_to(finished)
    options = json.loads((finished / "config.json").read_text())["options"]
    assert options["cache"] == "run:../cache"


CONTROL = "a\x1b[31m\x07b\x9b\u202ec\ud800\r\x00\n\td"


def test_control_characters_reach_no_page(tmp_path):
    """Whatever block of a page a text of a model is in."""
    (tmp_path / "a.png").write_bytes(b"")
    picture, C = documents.Picture("a.png", CONTROL), CONTROL
    blocks = [
        documents.Title(C, C), documents.Heading(C), documents.Paragraph(C), documents.Code(C),
        documents.Bullets((C,)), documents.Tiles(((C, C, C),)), documents.Table((C,), ((C,),)),
        picture, documents.Interactive(C, picture),
    ]  # fmt: skip
    assert {type(block) for block in blocks} == set(typing.get_args(documents.Block))
    for page in (documents.to_html(blocks, tmp_path), documents.to_markdown(blocks)):
        assert "a␛[31m␇b" in page
        assert not (set(CONTROL) - set("a[31mbcd\n\t")) & set(page)


def test_control_characters_reach_no_terminal(monkeypatch, capsys):
    shown = strings.printable(CONTROL)
    assert shown == "a␛[31m␇b\ufffd\ufffdc\ufffd␍␀\n\td" and len(shown) == len(CONTROL)

    def command(_):
        progress.show(CONTROL)
        progress.say(CONTROL)
        raise files.RunError(f"found {CONTROL}")

    monkeypatch.setitem(COMMANDS, "report", command)
    assert main(["report"]) == 2
    found = capsys.readouterr()
    assert not (set(CONTROL) - set("a[31mbcd\n\t")) & set(found.out + found.err)
