"""A grading worker: reads JSON lines on standard input, grades, writes JSON lines.

The first line names the grader and is answered with what it has; each line after that is a text
to grade or a pair of answers to compare, answered in order. `pool` starts these processes.
"""

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO

import jax

from thicket_jax.errors import ThicketError
from thicket_jax.text.graders import Grader, find


def main() -> None:
    """Serves requests until standard input ends; then ends, with every process of its group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # a grader that uses JAX takes no accelerator
    sys.argv[1:] = []
    source, sink = _private_pipes()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(source, lines), daemon=True).start()
    setup = json.loads(lines.get())
    grader = _found(setup["spec"], sink)
    limit = min(2 * setup["timeout"] + 60, 1e6)
    while True:
        request = json.loads(lines.get())
        # Ends the process if the parent was killed while a grader holds the interpreter.
        faulthandler.dump_traceback_later(limit, exit=True, file=2)
        reply = _reply(grader, request)
        faulthandler.cancel_dump_traceback_later()
        _write(sink, reply)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Moves the protocol away from descriptors 0 and 1, so that a grader may print and read."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _read(source: BinaryIO, lines: "queue.SimpleQueue[bytes]") -> None:
    for line in source:
        lines.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _write(sink: BinaryIO, reply: dict[str, Any]) -> None:
    sink.write(json.dumps(reply).encode() + b"\n")
    sink.flush()


def _found(spec: str, sink: BinaryIO) -> Grader:
    try:
        grader = find(spec)
    except ThicketError as error:
        _write(sink, {"failed": _one_line(str(error))})
        raise
    _write(sink, {"same": grader.same is not None, "columns": grader.columns})
    return grader


def _reply(grader: Grader, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "same" in request:
            assert grader.same is not None  # the parent asks only where there is one
            return {"same": bool(grader.same(*request["same"]))}
        outcome = grader(request["text"], request["item"])
    except BaseException as error:  # also SystemExit: a grader that raises is reported, not obeyed
        return {"error": _raised(error)}
    late = {"timed_out": True} if outcome.timed_out else {}
    return {
        "answer": outcome.answer,
        "score": outcome.score,
        "columns": dict(outcome.columns),
        **late,
    }


def _raised(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return _one_line(f"{type(error).__name__}: {error} ({place})")


def _one_line(message: str) -> str:
    line = " ".join(message.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= 500 else f"{line[:250]} ... {line[-250:]}"
