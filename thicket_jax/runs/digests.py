"""The manifest of a run directory: a SHA-256 of every file in it, written last.

A run is born with a manifest of its config and identity; the segments of its log carry their own
digests until the run is finished, when the manifest is sealed over every file. Whoever makes some
files again strikes them from it before, and enters them after. A release before this one wrote no
manifest, and its config.json says nothing of `digests`: its runs are read without.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from thicket_jax.errors import RunError
from thicket_jax.runs.files import TEMPORARY, read_json, write_json
from thicket_jax.runs.lock import NAME as LOCK

NAME = "manifest.json"
CONFIG, IDENTITY = "config.json", "log/identity.json"
REPORT = ("results.json", "figures", "report.md", "report.html")
"""What `thicket report` makes again."""
_NEEDED = (CONFIG, "experts.json", "items.npz")


def begin(run_dir: pathlib.Path, config: str | None = None) -> None:
    """Writes the manifest of a run that is not finished: its config and identity.

    Args:
      run_dir: of the run.
      config: the text that config.json is going to have; None takes it from the file.
    """
    files = {IDENTITY: _digest(run_dir / IDENTITY)}
    if config is None:
        files[CONFIG] = _digest(run_dir / CONFIG)
    else:
        files[CONFIG] = hashlib.sha256(config.encode()).hexdigest()
    _write(run_dir, files, False)


def seal(run_dir: pathlib.Path) -> None:
    """Writes the manifest of a finished run: every file in it."""
    _write(run_dir, {name: _digest(path) for name, path in _files(run_dir, "")}, True)


@contextlib.contextmanager
def changing(run_dir: pathlib.Path, *places: str) -> Iterator[None]:
    """Files at or below `places` change inside, and are entered anew at the end.

    A kill inside leaves them out of the manifest, so that they are not taken for damaged. A run
    without a manifest stays without.
    """
    found = read(run_dir)
    if found is None:
        yield
        return
    kept = {name: x for name, x in found["files"].items() if not _is_at(name, places)}
    if kept != found["files"]:
        _write(run_dir, kept, found["finished"])
    yield
    new = {name: _digest(path) for place in places for name, path in _files(run_dir, place)}
    _write(run_dir, kept | new, found["finished"])


def read(run_dir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the manifest: `files`, name → digest, and `finished`; None where there is none.

    Raises:
      RunError: it is damaged.
    """
    path = run_dir / NAME
    if not path.exists():
        return None
    found = read_json(path, ("finished", "files", "digest"), "restore it from a copy")
    if found["digest"] != _digest_of(found["files"], found["finished"]):
        raise RunError(f"{path} is damaged (its own digest is another); restore it from a copy")
    return dict(found)


def is_finished(run_dir: pathlib.Path) -> bool:
    """Whether a run has ended, by its manifest; without one, by its results."""
    if not (run_dir / "results.json").exists():
        return False
    found = read(run_dir)
    return found is None or bool(found["finished"])


def check(run_dir: pathlib.Path, besides: tuple[str, ...] = ()) -> bool:
    """Compares what is there of a finished run with its manifest; returns whether it has one.

    What was deleted is for its readers to miss.

    Args:
      run_dir: of the run.
      besides: files and folders that may be anything, as they are made again.

    Raises:
      RunError: a file differs, or the run has a manifest and is not finished, or the manifest
        itself was deleted; names what to do.
    """
    found = read(run_dir)
    if found is None:
        _check_older(run_dir)
        return False
    if not found["finished"]:
        raise RunError(f"{run_dir} is unfinished; thicket resume {run_dir}")
    lacking = [name for name in _NEEDED if name not in found["files"]]
    if lacking:
        raise RunError(f"{run_dir / NAME} is damaged (it has no {lacking[0]}); restore it")
    _compare(run_dir, {n: x for n, x in found["files"].items() if not _is_at(n, besides)})
    return True


def check_unfinished(run_dir: pathlib.Path) -> None:
    """Compares the config and the log of a run that is to go on with its manifest, if it has one.

    Raises:
      RunError: a file differs, or the manifest itself was deleted; names what to do.
    """
    found = read(run_dir)
    if found is None:
        _check_older(run_dir)
    else:
        _compare(run_dir, {n: x for n, x in found["files"].items() if _is_at(n, (CONFIG, "log"))})


def is_entered(run_dir: pathlib.Path, name: str) -> bool:
    """Whether a file is one that the manifest has the digest of; without a manifest, any is."""
    found = read(run_dir)
    return found is None or name in found["files"]


def _check_older(run_dir: pathlib.Path) -> None:
    config = read_json(run_dir / CONFIG)
    if isinstance(config, Mapping) and "digests" in config:
        raise RunError(
            f"{run_dir / NAME} is missing; restore it from a copy or start a new run, as without "
            "it no damage would be found"
        )


def mend_of(run_dir: pathlib.Path, name: str) -> str:
    """What to do about a damaged file of a run."""
    first, *rest = name.split("/")
    if name in ("experts.json", "items.npz"):
        return f"delete it and results.json, and thicket resume {run_dir} makes it again " + (
            "from the log"
        )
    if name == "results.json":
        return f"delete it, and thicket report {run_dir} writes it again, without the run's timing"
    if first in REPORT:
        return f"thicket report {run_dir} makes it again"
    if first == "log" and name != IDENTITY:
        return "delete that folder and resume, and its experts are scored again"
    if first == "landscapes" and rest:
        return f"delete {run_dir / first / rest[0]}, and thicket landscape makes it again"
    return "restore it from a copy or start a new run"


def _compare(run_dir: pathlib.Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        path = run_dir / name
        if not path.is_file() or _digest(path) == digest:
            continue
        parts = name.split("/")
        at = run_dir / "/".join(parts[:2]) if parts[0] == "log" else path
        inside = f" in {path.name}" if at != path else ""
        raise RunError(
            f"{at} is damaged: its content{inside} does not match its digest in {NAME}; "
            f"{mend_of(run_dir, name)}"
        )


def _write(run_dir: pathlib.Path, files: Mapping[str, str], finished: bool) -> None:
    files = dict(sorted(files.items()))
    value = {"finished": finished, "files": files, "digest": _digest_of(files, finished)}
    write_json(run_dir / NAME, value)


def _files(run_dir: pathlib.Path, place: str) -> Iterator[tuple[str, pathlib.Path]]:
    """(name, path) of all files at or below a place of a run that its manifest is over."""
    at = run_dir / place
    for path in [at] if at.is_file() else sorted(at.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if path.is_file() and name != NAME and path.name != LOCK and not name.endswith(TEMPORARY):
            yield name, path


def _is_at(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(files: Any, finished: Any) -> str:
    return hashlib.sha256(json.dumps([files, finished], sort_keys=True).encode()).hexdigest()
