"""A time limit for a call in the main thread, by SIGALRM."""

import gc
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_AGAIN = 0.1  # seconds until the next alarm: one may be lost where Python ignores exceptions

_WEAK = ("weakref", "_weakrefset")  # modules whose callbacks run when an object goes


class _OutOfTime(BaseException):
    """Not an Exception, so that the code it stops does not handle it."""


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Returns `function()`, or None if it took longer.

    Only Python's own steps can be stopped, not one long operation in C; and only in the main
    thread: elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    running = True

    def stop(number: int, frame: FrameType | None) -> None:
        if running and not _collecting(frame):
            raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            return function()
        finally:
            running = False
    except _OutOfTime:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _collecting(frame: FrameType | None) -> bool:
    """Whether this is a finaliser, or a callback of the garbage collector or a weak reference.

    Nothing leaves those (JAX has one of the second): an exception in them is printed and forgotten.
    """
    codes = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in codes or frame.f_globals.get("__name__") in _WEAK:
            return True
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
