"""Signals that end a program: they wait for a save, and end a command as Ctrl-C does."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal asked the program to end; its number is `signum`."""

    def __init__(self, signum: int) -> None:
        """Says which."""
        super().__init__()
        self.signum = signum


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """A signal that comes inside takes effect at the end."""
    came: list[int] = []
    try:
        with _handled(lambda number, _: came.append(number), ENDING):
            yield
    finally:
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Ended` inside, as Ctrl-C raises `KeyboardInterrupt`."""

    def end(number: int, _: Any) -> None:
        raise Ended(number)

    with _handled(end, ENDING[1:]):
        yield


@contextlib.contextmanager
def _handled(handler: Any, signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Sets a handler for signals that are not ignored; only the main thread has any."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            old = signal.getsignal(number)
            if old not in (signal.SIG_IGN, None):
                before[number] = old
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
