"""The crash-safe log of a run, and the fingerprints that say whether a run is still the same.

Scores go to `log/` as one Orbax checkpoint per segment of consecutive experts; where experts are
selected in rounds, of consecutive experts of a round, on the items of that round. Orbax makes a
segment appear at once or not at all, and each carries a digest of its content, and of the run and
the place in it that it belongs to, so that a kill at any moment costs the experts since the last
segment, and damage or a segment of another run is found, not used.
"""

import contextlib
import hashlib
import json
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from thicket_jax.errors import RunError
from thicket_jax.runs import checkpoints, digests, lock, strings
from thicket_jax.runs.files import (
    TEMPORARY,
    differences,
    fingerprint,
    json_text,
    plain_json,
    read_json,
    sync_folder,
    write_json,
    write_text,
)
from thicket_jax.scoring.scores import Scores, concatenate

SECONDS_BETWEEN_SEGMENTS = 30.0
SEGMENTS_PER_RUN = 20  # at least: a segment holds at most 5 % of the experts
_EXPERTS = "experts"
_BIRTH = ("log", "log/identity.json", digests.NAME, lock.NAME)  # made before config.json is


class RunLog:
    """The log of one run directory; used by process 0 alone."""

    def __init__(
        self,
        run_dir: pathlib.Path,
        num: int,
        name: str = _EXPERTS,
        most: int | None = None,
        positions: np.ndarray | None = None,
    ) -> None:
        """Opens the log of a run of `num` experts; see `create`, `reopen` and `round`."""
        self.run_dir, self.num, self.name = run_dir, num, name
        self.folder = run_dir / "log"
        self._most = most_per_call(num) if most is None else most
        self._positions = positions
        self._parts: list[Scores] = []
        self._start = 0
        self._seconds = 0.0
        self._last = time.monotonic()
        self._lock: lock.Lock | None = None

    @classmethod
    def create(
        cls, run_dir: pathlib.Path, config: Mapping[str, Any], identity: Mapping[str, Any], num: int
    ) -> "RunLog":
        """Starts a new run directory with its config and the identity that resume compares.

        config.json is the run's birth: what a kill before it leaves counts as new.
        """
        check_new(run_dir)
        log = cls(run_dir, num)
        log.folder.mkdir(parents=True, exist_ok=True)
        with log._taken():
            check_new(run_dir)  # another process may have begun it meanwhile
            write_json(run_dir / "log" / "identity.json", identity)
            text = json_text(config)
            digests.begin(run_dir, text)
            write_text(run_dir / "config.json", text)
            sync_folder(run_dir.absolute().parent)
        return log

    @classmethod
    def reopen(
        cls,
        run_dir: pathlib.Path,
        identity: Mapping[str, Any],
        num: int,
        mend: str = "undo the change or start a new run",
    ) -> "RunLog":
        """Opens an interrupted run; refuses with the differences if it is another run now.

        Args:
          run_dir: of the run.
          identity: what must be equal, as `create` was given it.
          num: of the run's experts.
          mend: what to do about a difference, as a sentence of the error.

        Raises:
          RunError: the log is missing, or this is another run.
        """
        if not (run_dir / "log").is_dir():
            raise RunError(f"{run_dir / 'log'} is missing; {run_dir} cannot be resumed")
        log = cls(run_dir, num)
        with log._taken():
            log._check_same(plain_json(identity), mend)
            digests.check_unfinished(run_dir)
            log._remove_unfinished("")
            digests.begin(run_dir)
        return log

    def _check_same(self, now: Any, mend: str) -> None:
        run_dir = self.run_dir
        changed = differences(read_json(run_dir / "log" / "identity.json"), now)
        if not changed:
            # config.json has the same entries, and is where people edit.
            config = read_json(run_dir / "config.json", tuple(now))
            changed = differences({name: config[name] for name in now}, now)
        if changed:
            raise RunError(
                f"{run_dir} is a different run and cannot be resumed: {'; '.join(changed)}; {mend}"
            )

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        """Takes the run's lock, and keeps it unless what is inside fails."""
        self._lock = lock.Lock(self.run_dir)
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets another process go on with the run."""
        if self._lock is not None:
            self._lock.release()

    def round(self, number: int, positions: np.ndarray, share: float) -> "RunLog":
        """Returns the log of one round of a selection, in which experts are those that take part.

        Its segments are `round<number>_<start>_<stop>`, and hold the experts' positions. One is
        written at the latest after as much work as a segment of an ordinary run holds.

        Args:
          number: of the round, from 0.
          positions: int [S], who takes part.
          share: of all items, that the round scores.
        """
        most = max(1, int(most_per_call(self.num) / share))
        positions = np.asarray(positions, np.int32)
        return RunLog(self.run_dir, len(positions), f"round{number:04d}", most, positions)

    def append(self, start: int, scores: Scores, seconds: float) -> None:
        """Takes the scores of consecutive experts from `start`; writes a segment when one is due.

        Args:
          start: position of the first expert; a gap to the last ones begins a new segment.
          scores: of these experts.
          seconds: that scoring them took.
        """
        held = sum(len(part) for part in self._parts)
        if self._parts and start != self._start + held:
            self.flush()
            held = 0
        if not self._parts:
            self._start = start
        self._parts.append(scores)
        self._seconds += seconds
        late = time.monotonic() - self._last >= SECONDS_BETWEEN_SEGMENTS
        if held + len(scores) >= self._most or late:
            self.flush()

    def flush(self) -> None:
        """Writes what is held as a segment, if anything is."""
        if not self._parts:
            return
        scores = concatenate(self._parts)
        stop = self._start + len(scores)
        tree = {**_tree(scores), "seconds": self._seconds}
        if self._positions is not None:
            tree["positions"] = self._positions[self._start : stop]
        name = f"{self.name}_{self._start:08d}_{stop:08d}"
        # An interrupt in the middle of a save flushes again: the segment may be there, or half.
        if not (self.folder / name).exists():
            self._remove_unfinished(name)
            self._save(name, tree)
        self._parts, self._seconds, self._last = [], 0.0, time.monotonic()

    def _remove_unfinished(self, name: str) -> None:
        for unfinished in self.folder.glob(f"{name}*{checkpoints.UNFINISHED}*"):
            shutil.rmtree(unfinished)

    def write_base(self, scores: Scores) -> None:
        """Writes the score of the unperturbed parameters."""
        self._save("base", _tree(scores))

    def read_base(self) -> Scores | None:
        """Returns the base's score, or None if it was not written yet."""
        if not (self.folder / "base").exists():
            return None
        return _scores(self._load("base"))

    def segments(self) -> Iterator[tuple[int, Scores, float]]:
        """Yields (start, scores, seconds) of every finished segment, in order."""
        if not self.folder.is_dir():
            raise RunError(f"{self.folder} is missing; the run has no log")
        for path in sorted(self.folder.iterdir()):
            match = re.fullmatch(rf"{self.name}_(\d{{8}})_(\d{{8}})", path.name)
            if not match:
                continue
            tree = self._load(path.name)
            start, stop = int(match[1]), int(match[2])
            if len(tree["values"]) != stop - start or stop > self.num:
                raise self._damaged(path.name, f"{len(tree['values'])} experts in it")
            here = None if self._positions is None else self._positions[start:stop]
            if here is not None and not np.array_equal(tree.get("positions", []), here):
                raise self._damaged(path.name, "its experts are not those of this round")
            yield start, _scores(tree), float(tree["seconds"])

    def _save(self, name: str, tree: dict[str, Any]) -> None:
        tree = {key: np.asarray(value) for key, value in tree.items()}
        tree["place"] = np.frombuffer(self._place(name), np.uint8)
        tree["digest"] = np.frombuffer(bytes.fromhex(fingerprint(tree)), np.uint8)
        checkpoints.save(self.folder / name, tree)

    def _load(self, name: str) -> dict[str, np.ndarray]:
        try:
            tree = checkpoints.load(self.folder / name)
            digest = tree.pop("digest")
        # Damage can surface as any error of the storage layers below; all mean the same here.
        except Exception as error:
            raise self._damaged(name, f"{type(error).__name__} while reading it") from error
        if digest.tobytes() != bytes.fromhex(fingerprint(tree)):
            raise self._damaged(name, "its content does not match its digest")
        place = tree.pop("place", None)  # release 0.2.0 wrote none
        if place is not None and place.tobytes() != self._place(name):
            raise self._damaged(name, "it is of another run, or of another place in this one")
        return tree

    def _place(self, name: str) -> bytes:
        """Says which segment of which run one is."""
        identity = read_json(self.folder / "identity.json")
        return hashlib.sha256(json.dumps([identity, name], sort_keys=True).encode()).digest()

    def _damaged(self, name: str, found: str) -> RunError:
        return RunError(
            f"{self.folder / name} is damaged: {found}; delete that folder and resume, and its "
            "experts are scored again"
        )


def _tree(scores: Scores) -> dict[str, Any]:
    """Scores as numeric arrays; columns are stacked, as any text may name one."""
    tree: dict[str, Any] = {"values": scores.values, "failed": scores.failed}
    if scores.items is not None:
        tree["items"] = scores.items
    if scores.answers is not None:
        tree |= {f"answers_{part}": x for part, x in strings.pack(scores.answers).items()}
    if scores.columns:
        names = json.dumps(list(scores.columns)).encode()
        tree["column_names"] = np.frombuffer(names, np.uint8)
        tree["columns"] = np.stack(list(scores.columns.values()))
    return tree


def _scores(tree: Mapping[str, np.ndarray]) -> Scores:
    """The scores of `_tree`; what an older release left out is absent."""
    answers, columns = None, {}
    if "answers_codes" in tree:
        answers = strings.unpack({part: tree[f"answers_{part}"] for part in strings.PARTS})
    if "columns" in tree:
        names = json.loads(tree["column_names"].tobytes())
        columns = dict(zip(names, tree["columns"], strict=True))
    return Scores(tree["values"], tree["failed"], tree.get("items"), answers, columns)


def most_per_call(num: int) -> int:
    """Returns the experts after which a run of `num` logs at the latest: 5 % of the run."""
    return max(1, num // SEGMENTS_PER_RUN)


def check_new(run_dir: pathlib.Path) -> None:
    """Raises `RunError` if a run directory cannot be made at `run_dir`."""
    file = next((part for part in run_dir.parents if part.exists() and not part.is_dir()), None)
    if file is not None:
        raise RunError(f"run directory {run_dir} cannot be made: {file} is a file; choose another")
    if not run_dir.exists():
        return
    if (run_dir / "config.json").exists():
        raise RunError(
            f"run directory {run_dir} exists; resume it (thicket resume {run_dir}, or "
            "resume=True), or choose another"
        )
    if not run_dir.is_dir() or not _is_unborn(run_dir):
        raise RunError(f"{run_dir} exists and is not an empty directory; choose another")


def check_born(run_dir: pathlib.Path) -> None:
    """Raises `RunError` where a run was killed at its birth: there is nothing to go on with."""
    if run_dir.is_dir() and not (run_dir / "config.json").exists() and _is_unborn(run_dir):
        raise RunError(f"{run_dir} has nothing to go on with yet; start it with thicket run")


def _is_unborn(run_dir: pathlib.Path) -> bool:
    """Whether a folder has nothing but what a kill at the birth of a run leaves."""
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*")}
    return {name.removesuffix(TEMPORARY) for name in names} <= {*_BIRTH, "config.json"}
