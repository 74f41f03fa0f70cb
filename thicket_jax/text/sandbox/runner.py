"""The sandbox's helper process: forks one confined child for every program that it is sent.

Run by its path with a bare interpreter, never imported: it stands on the standard library and the
files beside it, so it starts quickly, has no threads, and is cheap to fork. No program runs in it,
and the literal that a test expects never reaches it.

A message, in either direction, is a length (4 bytes, big-endian) and JSON; the first one out says
which layers hold. A child reports in lines on a pipe, each after a word drawn for that child.
"""

# Some of these are for the programs: imported once here rather than in every child.
import array  # noqa: F401
import bisect  # noqa: F401
import builtins
import cmath  # noqa: F401
import contextlib
import datetime  # noqa: F401
import gc
import heapq  # noqa: F401
import importlib.util
import itertools
import json
import os
import random
import select
import signal
import statistics  # noqa: F401
import sys
import tempfile
import time
import types

# Builtins of its own for what is defined from here on: a program that patches `builtins` does not
# reach it.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]

_REPORT = 3  # the child's file descriptor for its report
_MOST_FILES = 1000
_SCAN_SECONDS = 0.05


def _beside(name):
    """The module in a file beside this one, with the same private builtins."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = __builtins__
    spec.loader.exec_module(module)
    return module


limits = _beside("limits")
program = _beside("program")
syscalls = _beside("syscalls")
values = _beside("values")


class Zygote:
    """What the children of this process share: settings, layers, the root of their folders."""

    def __init__(self, settings, root):
        """Finds and tests the layers; `root` is an empty folder of this process's own."""
        self.settings = settings
        self.root = root
        self.numbers = itertools.count()
        self.readable = limits.readable_paths(settings["numpy"])
        self.landlock = limits.landlock_version()
        self.filter = None
        self.layers = {"capabilities": False, "landlock": False, "seccomp": False}
        if sys.platform == "linux":
            self.filter = syscalls.filter_program(writes=self.landlock > 0)
            self._try_layers()

    def _try_layers(self):
        """Keeps the layers that hold: each is put to the test in a child of its own."""
        if self.landlock and not self._holds(self._try_files):
            self.landlock = 0
            self.filter = syscalls.filter_program(writes=False)
        if self.filter and not self._holds(self._try_system_calls):
            self.filter = None
        self.layers = {
            "capabilities": self._holds(limits.drop_capabilities),
            "landlock": self.landlock > 0,
            "seccomp": self.filter is not None,
        }

    def _try_files(self):
        limits.forbid_new_privileges()
        folder = os.path.join(self.root, "own")
        os.mkdir(folder)
        limits.limit_files(folder, self.readable, self.landlock)
        open(os.path.join(folder, "file"), "w").close()
        with contextlib.suppress(PermissionError):
            open(os.path.join(self.root, "file"), "w").close()
            os._exit(1)

    def _try_system_calls(self):
        limits.forbid_new_privileges()
        limits.limit_system_calls(self.filter)
        if limits.can_use_network():
            os._exit(1)
        with contextlib.suppress(PermissionError):
            os.fork()
            os._exit(1)

    def _holds(self, action):
        """Whether an action succeeds in a child of its own."""
        pid = os.fork()
        if pid == 0:
            try:
                action()
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    def run(self, request):
        """Runs one program in a child and says what came of it."""
        folder = os.path.join(self.root, str(next(self.numbers)))
        os.mkdir(folder, 0o700)
        word = os.urandom(8).hex()
        results, results_end = os.pipe()
        output, output_end = os.pipe()
        parent = os.getpid()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                self._child(request, word, parent, folder, results_end, output_end)
            finally:
                os._exit(1)
        os.close(results_end)
        os.close(output_end)
        deadline = started + self.settings["time_limit"]
        status, report, printed = self._watch(results, output, word, folder, deadline, request)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):  # it may not lead a group yet
                kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(results)
        os.close(output)
        remove(folder)
        return {
            "status": status,
            "records": _records(report, word),
            "output": printed.decode("utf-8", "replace"),
            "seconds": time.monotonic() - started,
        }

    def _watch(self, results, output, word, folder, deadline, request):
        """Reads what a child reports and prints until it is done or has passed a limit."""
        most_output = self.settings["output_bytes"]
        most_results = 100_000 + 20_000 * len(request["checks"])
        last_line = (word + '["ended"]\n').encode()
        report, printed = bytearray(), bytearray()
        poller = select.poll()
        for stream in (results, output):
            os.set_blocking(stream, False)
            poller.register(stream, select.POLLIN)
        scan = time.monotonic() + _SCAN_SECONDS
        status = None
        while status is None:
            now = time.monotonic()
            if now >= deadline:
                return "timeout", report, printed
            if now >= scan:
                if _too_much(folder, most_output):
                    return "output", report, printed
                scan = time.monotonic() + _SCAN_SECONDS
            wait = max(0.0, min(deadline, scan) - now)
            ready = {stream for stream, _ in poller.poll(1000 * wait + 1)}
            # What was printed before the last line of the report is in the pipe by then.
            if results in ready:
                report += (data := os.read(results, 1 << 16))
                if report.endswith(last_line):
                    status = "ended"
                elif not data or len(report) > most_results:
                    status = "exit"
            if output in ready or status is not None:
                still_open = _drain(output, printed, most_output)
                if not still_open and status is None:
                    poller.unregister(output)  # or it would be ready for ever
            if len(printed) > most_output:
                return "output", report, printed[:most_output]
        return status, report, printed

    def _child(self, request, word, parent, folder, results, output):
        """A child's life: gives up its rights, runs the program and its checks, ends at once."""
        os.setsid()
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(results, _REPORT)
        os.closerange(_REPORT + 1, 256)  # the zygote itself has a dozen
        sys.stdin = _stream(0, "r")
        sys.stdout = _stream(1, "w")
        sys.stderr = _stream(2, "w")
        encode, write, printed = json.JSONEncoder().encode, os.write, (sys.stdout, sys.stderr)

        def send(*record):
            line = (word + encode(record) + "\n").encode()
            while line:
                line = line[write(_REPORT, line) :]

        try:
            # Every program text that names it pays its import itself, so that none depends on which
            # ran before it in this process.
            if "numpy" in request["code"] + request["setup"]:
                _import_numpy(self.settings["numpy"])
            self._confine(parent, folder)
        except (OSError, ValueError) as error:
            return send("refused", str(error))
        random.seed(0)  # what a program does must not depend on which worker runs it
        tempfile.tempdir = folder
        module = types.ModuleType("program")
        sys.modules["program"] = module
        vars(module)["__builtins__"] = builtins
        program.execute(request, vars(module), values.describe, send)
        for stream in printed:
            with contextlib.suppress(BaseException):
                stream.flush()
        send("ended")
        os._exit(0)

    def _confine(self, parent, folder):
        """Applies every layer that holds here; seccomp last, as the others need system calls."""
        cpu_seconds = int(self.settings["time_limit"]) + 2
        limits.limit_resources(
            self.settings["memory_bytes"], self.settings["output_bytes"], cpu_seconds
        )
        limits.die_with(parent)
        if sys.platform != "linux":
            return
        limits.forbid_new_privileges()
        if self.layers["landlock"]:
            limits.limit_files(folder, self.readable, self.landlock)
        if self.layers["capabilities"]:
            limits.drop_capabilities()
        if self.layers["seccomp"]:
            limits.limit_system_calls(self.filter)


def _import_numpy(site):
    """Imports numpy, and nothing else of the folder that it is installed in."""
    if site is not None:
        sys.path.append(site)
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy")
        sys.path.remove(site)


def _stream(descriptor, mode):
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def _drain(stream, data, most):
    """Adds what is in a pipe to `data` until that is more than `most`; False at the pipe's end."""
    with contextlib.suppress(BlockingIOError):
        while len(data) <= most:
            part = os.read(stream, 1 << 16)
            if not part:
                return False
            data += part
    return True


def _records(report, word):
    """The lines of a report, up to one that is not whole or lacks the child's word."""
    records = []
    for line in report.decode("ascii", "replace").split("\n")[:-1]:
        if not line.startswith(word):
            break
        try:
            records.append(json.loads(line[len(word) :]))
        except (ValueError, RecursionError):
            break
    return records


def _too_much(folder, most_bytes):
    """Whether a folder holds too many bytes or entries, or hides what it holds."""
    waiting, files, size = [folder], 0, 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    with contextlib.suppress(FileNotFoundError):
                        size += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if files > _MOST_FILES or size > most_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False


def remove(folder):
    """Removes a folder whose tree may be deeper than recursion or a path's length allows."""
    waiting, number = [folder], itertools.count()
    while waiting:
        current = waiting.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    aside = f"{folder}.{next(number)}"
                    os.rename(entry.path, aside)
                    waiting.append(aside)
                else:
                    os.unlink(entry.path)
        os.rmdir(current)


def _receive(stream, size):
    """`size` bytes, or None at the end of the stream."""
    data = b""
    while len(data) < size:
        part = os.read(stream, size - len(data))
        if not part:
            return None
        data += part
    return data


def _reply(stream, message):
    data = json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(stream, data) :]


def main():
    """Serves requests from standard input until it ends."""
    settings = json.loads(sys.argv[1])
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    root = tempfile.mkdtemp(prefix="thicket-sandbox-")
    try:
        zygote = Zygote(settings, root)
        _reply(replies, {"layers": zygote.layers, "root": root})
        gc.collect()
        gc.freeze()
        while (size := _receive(requests, 4)) is not None:
            data = _receive(requests, int.from_bytes(size, "big"))
            if data is None:
                break
            _reply(replies, zygote.run(json.loads(data)))
    finally:
        remove(root)


if __name__ == "__main__":
    main()
