"""Requests → grading workers: several processes, a time limit for each request.

One thread reads and writes every pipe without blocking, so that neither a large text nor a large
answer can stop both sides. A worker that is late is killed with its process group and replaced.
"""

import collections
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from thicket_jax.errors import ArgumentError, RunError, ScoreError

TIMED_OUT = "timed out"
DIED = "died"
Reply = dict[str, Any] | str
"""What the worker wrote, or `TIMED_OUT`, or `DIED`."""

_START_SECONDS = 120.0
_AHEAD = (2, 64)  # requests in a worker, at least and at most: it need not wait for the next
_AHEAD_SECONDS = 0.02  # of work in a worker at most, so that a slow text holds up few others
_DEATHS, _LATE = 40, 100  # in a row, without a reply between them: it is the grader, not a text
_FIRST_DEATHS = 6  # of as many requests, without any reply since the start: it is the grader
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from thicket_jax.text.grading.worker import main; main()"
)


@dataclasses.dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    since: float  # when the request that it works on began, or its start was first waited for
    ready: bool = False
    jobs: collections.deque[int] = dataclasses.field(default_factory=collections.deque)
    outgoing: bytearray = dataclasses.field(default_factory=bytearray)
    incoming: bytearray = dataclasses.field(default_factory=bytearray)
    errors: bytearray = dataclasses.field(default_factory=bytearray)


class _Batch:
    """The requests of one call, and what is known of them."""

    def __init__(self, requests: Sequence[str], describe: Callable[[int], str]) -> None:
        self.requests = requests
        self.describe = describe
        self.waiting = collections.deque(range(len(requests)))
        self.replies: dict[int, Reply] = {}
        self.deaths: collections.Counter[int] = collections.Counter()


class Pool:
    """Worker processes of one grader; see `worker.py` beside this for what they are told."""

    def __init__(self, spec: str, *, workers: int, timeout: float) -> None:
        """Starts the workers; `ready` waits for them.

        Args:
          spec: the grader's name.
          workers: number of processes.
          timeout: seconds that one request may take.
        """
        self.spec, self.timeout = spec, timeout
        self.features: dict[str, Any] = {}
        self._pace = 1.0  # seconds a reply, lately
        self._closed = False
        self._folder = os.getcwd()
        self._deaths = self._lates = 0
        self._replied = False
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._size = workers
        self._workers: list[_Worker] = []
        self._fill()

    def ready(self) -> dict[str, Any]:
        """Waits until one worker has found the grader, and returns what it says of it.

        Raises:
          ArgumentError: the grader cannot be found.
          ScoreError: the worker ended, or was not ready in time.
        """
        with self._lock:
            self._fill()
            self._begin_waiting()
            while not self.features:
                self._wait(_Batch((), str))
        return self.features

    def run(self, requests: Sequence[str], describe: Callable[[int], str]) -> list[Reply]:
        """Answers every request, in order.

        Args:
          requests: JSON, each one line.
          describe: what to call the request at a position, in an error.

        Raises:
          ScoreError: the grader raised, or its workers keep dying.
        """
        batch = _Batch(requests, describe)
        with self._lock:
            self._fill()
            self._begin_waiting()
            try:
                while len(batch.replies) < len(requests):
                    for worker in self._workers:
                        self._feed(worker, batch)
                    self._wait(batch)
            except BaseException:
                for worker in [w for w in self._workers if w.jobs]:
                    self._workers.remove(worker)  # its answers would be taken for the next call's
                    self._stop(worker)
                raise
        return [batch.replies[position] for position in range(len(requests))]

    def close(self) -> None:
        """Kills the workers. A `run` of another thread ends with an error."""
        self._closed = True
        with self._lock:
            while self._workers:
                self._stop(self._workers.pop())
            self._selector.close()

    def _fill(self) -> None:
        if self._closed:
            raise RunError("the graders were closed; open new ones")
        while len(self._workers) < self._size:
            self._workers.append(self._start())

    def _start(self) -> _Worker:
        path = json.dumps([str(entry) for entry in sys.path])
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self._folder,  # also for those that start later
            start_new_session=True,  # out of reach of Ctrl-C, and killed as one group
        )
        assert process.stdin and process.stdout and process.stderr  # they are pipes
        streams = (process.stdin, process.stdout, process.stderr)
        for stream in streams:
            os.set_blocking(stream.fileno(), False)
        worker = _Worker(process, *streams, since=time.monotonic())
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        self._selector.register(worker.stderr, selectors.EVENT_READ, worker)
        self._send(worker, json.dumps({"spec": self.spec, "timeout": self.timeout}))
        # At once, so that it starts while nobody waits for it; an empty pipe takes these bytes.
        self._write(worker)
        return worker

    def _begin_waiting(self) -> None:
        """Starts the clock of workers that are not ready: the time until now was nobody's."""
        now = time.monotonic()
        for worker in self._workers:
            if not worker.ready:
                worker.since = now

    def _stop(self, worker: _Worker) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        for stream in (worker.stdin, worker.stdout, worker.stderr):
            if stream in self._selector.get_map():
                self._selector.unregister(stream)
            stream.close()

    def _replace(self, worker: _Worker) -> None:
        self._stop(worker)
        self._workers[self._workers.index(worker)] = self._start()

    def _feed(self, worker: _Worker, batch: _Batch) -> None:
        least, most = _AHEAD
        ahead = min(most, max(least, int(_AHEAD_SECONDS / max(self._pace, 1e-6))))
        while worker.ready and batch.waiting and len(worker.jobs) < ahead:
            if not worker.jobs:
                worker.since = time.monotonic()
            worker.jobs.append(batch.waiting.popleft())
            self._send(worker, batch.requests[worker.jobs[-1]])

    def _send(self, worker: _Worker, line: str) -> None:
        if not worker.outgoing:
            self._selector.register(worker.stdin, selectors.EVENT_WRITE, worker)
        worker.outgoing += line.encode() + b"\n"

    def _wait(self, batch: _Batch) -> None:
        """Handles what the pipes hold, then whoever is late."""
        if self._closed:
            raise RunError("the graders were closed; open new ones")
        left = min(map(self._deadline, self._workers)) - time.monotonic()
        for key, _ in self._selector.select(min(max(left, 0.0), 0.5)):
            worker = key.data
            if worker not in self._workers:
                continue
            if key.fileobj is worker.stdin:
                self._write(worker)
            elif key.fileobj is worker.stderr:
                self._drain(worker)
            elif self._read(worker):
                self._died(worker, batch)
            else:
                self._take(worker, batch)
        now = time.monotonic()
        for worker in [w for w in self._workers if self._deadline(w) < now]:
            self._late(worker, batch)

    def _deadline(self, worker: _Worker) -> float:
        if not worker.ready:
            return worker.since + _START_SECONDS
        return worker.since + self.timeout if worker.jobs else float("inf")

    def _write(self, worker: _Worker) -> None:
        try:
            del worker.outgoing[: os.write(worker.stdin.fileno(), worker.outgoing[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # it died; the end of its output says so
            worker.outgoing.clear()
        if not worker.outgoing:
            self._selector.unregister(worker.stdin)

    def _drain(self, worker: _Worker) -> None:
        chunk = os.read(worker.stderr.fileno(), 1 << 16)
        if not chunk:
            self._selector.unregister(worker.stderr)
        worker.errors = (worker.errors + chunk)[-4000:]

    def _read(self, worker: _Worker) -> bool:
        """Reads all that is there; returns whether the worker has ended."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(worker.stdout.fileno(), 1 << 16):
                worker.incoming += chunk
            return True
        return False

    def _take(self, worker: _Worker, batch: _Batch) -> None:
        *lines, rest = worker.incoming.split(b"\n")
        worker.incoming = rest
        for line in lines:
            reply = json.loads(line)
            now = time.monotonic()
            self._pace += 0.05 * (now - worker.since - self._pace)
            worker.since = now
            if "failed" in reply:
                raise ArgumentError(reply["failed"])
            if not worker.ready:
                worker.ready, self.features = True, reply
                continue
            position = worker.jobs.popleft()
            if "error" in reply:
                raise ScoreError(
                    f"grader {self.spec} raised {reply['error']} on {batch.describe(position)}; "
                    "mend the grader or the item"
                )
            self._deaths = self._lates = 0
            self._replied = True
            batch.replies[position] = reply

    def _died(self, worker: _Worker, batch: _Batch) -> None:
        """Takes what it still wrote; the request that it worked on has one more attempt."""
        self._take(worker, batch)
        if worker.stderr in self._selector.get_map():
            with contextlib.suppress(BlockingIOError):
                self._drain(worker)
        self._replace(worker)
        ended = f"ended with exit code {worker.process.returncode}"
        words = worker.errors.decode(errors="replace").strip().splitlines()
        last = f": {words[-1].strip():.300}" if words else ""
        if not worker.ready:
            raise ScoreError(f"a worker of grader {self.spec} {ended} at its start{last}")
        if not worker.jobs:
            return
        head = worker.jobs[0]
        self._deaths += 1
        if self._deaths >= (_DEATHS if self._replied else _FIRST_DEATHS):
            raise ScoreError(
                f"workers of grader {self.spec} died {self._deaths} times in a row, the last one "
                f"{ended} on {batch.describe(head)}{last}; mend the grader"
            )
        batch.deaths[head] += 1
        if batch.deaths[head] > 1:
            batch.replies[worker.jobs.popleft()] = DIED
        batch.waiting.extendleft(reversed(worker.jobs))

    def _late(self, worker: _Worker, batch: _Batch) -> None:
        self._replace(worker)
        if not worker.ready:
            raise ScoreError(
                f"a worker of grader {self.spec} was not ready after {_START_SECONDS:.0f} s; "
                "import less in the grader's module"
            )
        self._lates += 1
        if self._lates >= _LATE:
            raise ScoreError(
                f"grader {self.spec} took longer than {self.timeout:g} s {_LATE} times in a row, "
                f"the last time on {batch.describe(worker.jobs[0])}; raise the time limit or mend "
                "the grader"
            )
        batch.replies[worker.jobs.popleft()] = TIMED_OUT
        batch.waiting.extendleft(reversed(worker.jobs))
