"""Runs programs of unknown origin (a model wrote them) in confined processes, and compares values.

A `Sandbox` starts one small helper process (`runner.py`), which forks a child for every
program. The child has limits on time, memory and output, an empty directory of its own, no network,
no other threads or processes, and nothing to write outside its directory. It has the standard
library, and numpy where that is installed. A program cannot slow or stop the run beyond its limit,
and cannot reach the files, network or processes of the machine.

A check `assert f(x) == y` is split: the child evaluates `f(x)` and sends a description of the
value; `y`, if it is a literal, stays in the caller, which compares. So exits, printed results,
patched builtins or an `__eq__` that is always true make no wrong program pass.

Not defended: a program written to cheat its own score. It shares the child with the code that
describes values, and can forge a description if it knows what is expected; checks of another
form are judged in the child altogether. Its score is then wrong; nothing else is harmed.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import select
import shutil
import subprocess
import sys
import sysconfig
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from thicket_jax.errors import ArgumentError, DataError, ThicketError
from thicket_jax.text.sandbox.values import describe

_RUNNER = pathlib.Path(__file__).with_name("runner.py")
_START_SECONDS = 60.0  # for the helper to start on a busy machine
_GRACE_SECONDS = 10.0  # for the helper to answer after a program's time limit
_LEAST_MEMORY = 64 << 20
# Of numpy's linear algebra, whichever it has: a program may not start threads.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class SandboxError(ThicketError):
    """Programs cannot be confined on this machine, or the sandbox's own process does not start."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What a program did on one check.

    Attributes:
      kind: "value" (the left side of `==` has a value), "truth" (another statement), "raises" (an
        exception), or "stopped" (a limit was passed, or the process ended, before it was done).
      text: the value's description (see `values.describe`), "True" or "False", the
        exception's type, or the run's status.
      passed: whether the check holds.
    """

    kind: str
    text: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one run.

    Attributes:
      status: "ended" (every check was tried), "raised" (the program itself raised, before any
        check), "syntax" (it does not compile), "timeout", "output" (it printed or stored too much),
        or "exit" (its process ended before the checks did: exit, crash).
      names: names that the program binds at its top level, sorted.
      checks: one for each check, in their order.
      output: what it printed, at most `output_bytes`.
      seconds: wall time of the run.
    """

    status: str
    names: tuple[str, ...]
    checks: tuple[Check, ...]
    output: str
    seconds: float


class Sandbox:
    """A place to run programs, one after another, each in a process of its own.

    A context manager; or call `close` at the end. Not for several threads at once.

    Example:
      >>> with Sandbox(time_limit=2.0) as sandbox:
      ...     result = sandbox.run("def double(x): return 2 * x", ["assert double(2) == 5"])
      >>> result.checks
      (Check(kind='value', text='4', passed=False),)
    """

    def __init__(
        self,
        *,
        time_limit: float = 5.0,
        memory_bytes: int = 512 << 20,
        output_bytes: int = 1 << 20,
        allow_unsafe: bool = False,
    ) -> None:
        """Holds the limits; nothing is started yet.

        Args:
          time_limit: wall seconds of one run, its checks included.
          memory_bytes: address space of one run, at least 64 MiB; Python itself takes about 30 MiB.
          output_bytes: what one run may print, and what it may store in its directory.
          allow_unsafe: run programs even where network and processes cannot be taken from them.

        Raises:
          ArgumentError: a limit that cannot work.
        """
        if not (_is_number(time_limit) and 0 < time_limit <= 86400):
            raise ArgumentError(f"time_limit={time_limit!r} must be seconds, more than 0")
        if not (_is_number(memory_bytes) and memory_bytes >= _LEAST_MEMORY):
            raise ArgumentError(f"memory_bytes={memory_bytes!r} must be at least {_LEAST_MEMORY}")
        if not (_is_number(output_bytes) and output_bytes >= 1):
            raise ArgumentError(f"output_bytes={output_bytes!r} must be at least 1")
        self._time_limit = float(time_limit)
        self._settings = {
            "time_limit": float(time_limit),
            "memory_bytes": int(memory_bytes),
            "output_bytes": int(output_bytes),
            "numpy": _numpy_folder(),
        }
        self._allow_unsafe = allow_unsafe
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._root: str | None = None
        self.layers: dict[str, bool] = {}

    def __enter__(self) -> Self:
        """Starts the helper process."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the helper process."""
        self.close()

    def start(self) -> None:
        """Starts the helper process if it does not run, and finds which `layers` hold.

        Raises:
          SandboxError: programs cannot be confined on this machine.
        """
        if self._process is not None:
            return
        if os.name != "posix":
            raise SandboxError(f"programs cannot be confined on {sys.platform}; use Linux")
        self._process = process = _helper(self._settings)
        self._finalizer = weakref.finalize(self, _stop, os.getpid(), process, None)
        try:
            hello = self._read(_START_SECONDS)
        except TimeoutError:
            hello = None
        if hello is None:
            process.kill()
            lines = process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
            self.close()
            message = lines[-1] if lines else "it wrote nothing"
            raise SandboxError(f"the sandbox does not start with {sys.executable}: {message}")
        self.layers, self._root = hello["layers"], hello["root"]
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _stop, os.getpid(), process, self._root)
        if not self.layers["seccomp"] and not self._allow_unsafe:
            self.close()
            raise SandboxError(
                "programs cannot be kept from the network and from starting processes here, as the "
                "system refuses seccomp; use Linux, on x86_64 or aarch64, where that is allowed"
            )

    def run(self, code: str, checks: Sequence[str], *, setup: str = "") -> Result:
        """Runs a program, then the setup, then each check, in one namespace of a fresh process.

        The hash seed, the seed of `random` and the time zone are fixed, so that equal programs
        behave equally. Starting a thread or a process raises.

        Args:
          code: the program; its module is named "program", so a block for `__main__` does not run.
          checks: statements of Python, usually `assert f(x) == y`.
          setup: statements between the two, e.g. an item's `test_setup_code`.

        Returns:
          What happened, whatever the program did.

        Raises:
          DataError: a check is not Python.
          SandboxError: programs cannot be confined on this machine.
        """
        plans = [_plan(check) for check in checks]
        request = {
            "code": code,
            "setup": setup,
            "checks": [(plan.kind, plan.left, plan.right) for plan in plans],
        }
        data = json.dumps(request).encode()
        # The helper may have died since the last run, so a request is tried once more.
        reply = self._ask(data) or self._ask(data) or {"status": "exit", "records": []}
        return _result(reply, plans)

    def close(self) -> None:
        """Ends the helper process and removes its directory; a later run starts another one."""
        self._process = None
        if self._finalizer is not None:
            self._finalizer()

    def _ask(self, data: bytes) -> dict[str, Any] | None:
        """The helper's reply; None if it died."""
        self.start()
        assert self._process is not None and self._process.stdin is not None
        try:
            message = memoryview(len(data).to_bytes(4, "big") + data)
            while message:
                message = message[self._process.stdin.write(message) or 0 :]
            reply = self._read(self._time_limit + _GRACE_SECONDS)
        except BrokenPipeError:
            reply = None
        except TimeoutError:
            reply = {"status": "timeout", "records": []}
            self._process.kill()
            self.close()
        except BaseException:
            # An interrupt came between question and answer: the next answer would be this one's.
            self._process.kill()
            self.close()
            raise
        if reply is None:
            self.close()
        return reply

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The helper's next message; None if it has ended. Raises TimeoutError if it is late."""
        deadline = time.monotonic() + seconds
        size = self._read_bytes(4, deadline)
        data = self._read_bytes(int.from_bytes(size, "big"), deadline) if size else None
        return json.loads(data) if data else None

    def _read_bytes(self, size: int, deadline: float) -> bytes | None:
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(stream, select.POLLIN)
        data = b""
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(1000 * left):
                raise TimeoutError
            part = os.read(stream, size - len(data))
            if not part:
                return None
            data += part
        return data


def layers() -> dict[str, bool]:
    """Tests which layers of confinement hold on this machine.

    Returns:
      "seccomp": no network, no other processes, none of the kernel's controls (programs are
      refused without it); "landlock": files are read in Python's directories and written in the
      program's own (without it, any file that the user can read is read, and none is written);
      "capabilities": the superuser's rights are dropped.
    """
    if os.name != "posix":
        return {"capabilities": False, "landlock": False, "seccomp": False}
    with Sandbox(allow_unsafe=True) as sandbox:
        return dict(sandbox.layers)


def _numpy_folder() -> str | None:
    """The folder that numpy is installed in; None where it is not."""
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        return None
    return str(pathlib.Path(found.origin).resolve().parent.parent)


def _helper(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Starts the helper process, with nothing of this process's environment."""
    # With -I Python would ignore the hash seed: a set's order would differ between workers.
    options = ["-s", "-S", "-P", "-X", "utf8", "-W", "ignore"]
    environment = {
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        **dict.fromkeys(_ONE_THREAD, "1"),
        # An interpreter with a shared library of its own may not know where it is.
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or "",
    }
    return subprocess.Popen(
        [sys.executable, *options, str(_RUNNER), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd="/",
        env=environment,
        start_new_session=True,  # an interrupt of the terminal is the caller's to handle
    )


def _stop(owner: int, process: subprocess.Popen[bytes], root: str | None) -> None:
    """Ends a helper: the end of its input, else a signal, which ends its child too."""
    if os.getpid() != owner:  # a fork of the process that started it
        return
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    if root is not None:
        shutil.rmtree(root, ignore_errors=True)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A check as the child gets it, and the description of what it expects, which stays here."""

    kind: Literal["value", "truth", "run"]
    left: str
    right: str | None = None
    expected: str | None = None


@functools.lru_cache(maxsize=4096)
def _plan(check: str) -> _Plan:
    """Splits a check; a literal is never sent to the child."""
    try:
        body = ast.parse(check.strip()).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"the test {check!r:.200} is not Python ({error}); mend the data") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return _Plan("run", check.strip())
    match body[0].test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            try:
                expected, plain = describe(ast.literal_eval(right))
            except (ValueError, TypeError):
                plain = False
            if plain:
                return _Plan("value", ast.unparse(left), None, expected)
            return _Plan("value", ast.unparse(left), ast.unparse(right))
        case test:
            return _Plan("truth", ast.unparse(test))


def _result(reply: dict[str, Any], plans: Sequence[_Plan]) -> Result:
    """Reads a child's records; one that is not well-formed counts as the end of the process."""
    status, names, raised = reply["status"], (), None
    checks: list[Check] = []
    for record in reply["records"]:
        match record:
            case ["refused", str(reason)]:
                raise SandboxError(f"a program could not be confined: {reason}")
            case ["syntax"]:
                status = "syntax"
            case ["names", [*found]] if all(isinstance(name, str) for name in found):
                names = tuple(found)
            case ["raised", str(name)]:
                raised = name
            case ["check", kind, str(text), passed] if len(checks) < len(plans):
                expected = plans[len(checks)].expected
                if kind == "value" and expected is not None:
                    passed = text == expected
                checks.append(Check(str(kind), text, passed is True and kind != "raises"))
            case ["ended"]:
                break
            case _:
                status = "exit"
                break
    if status == "ended" and raised is not None:
        status = "raised"
    elif status == "ended" and len(checks) < len(plans):
        status = "exit"
    rest = Check("raises", raised, False) if raised else Check("stopped", status, False)
    checks += [rest] * (len(plans) - len(checks))
    output, seconds = reply.get("output", ""), reply.get("seconds", 0.0)
    return Result(status, names, tuple(checks), output, seconds)
