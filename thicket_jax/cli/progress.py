"""What a command says while it works."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thicket_jax.runs import strings

if TYPE_CHECKING:
    from thicket_jax.search.problem import SearchProgress

SECONDS_OF_SILENCE = 30.0

Say = Callable[[str], None]
"""Takes a line for people; results do not go this way."""


def say(text: str) -> None:
    """Says a line at once, beside the results."""
    print(strings.printable(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Prints a line of a result."""
    print(strings.printable(text))


def quiet(text: str) -> None:
    """Says nothing."""
    del text


class Progress:
    """Shows what is done and how far it is: a bar on a terminal, a line every tenth elsewhere.

    Called with a search's own record, or, by `points`, with counts alone; both are told where they
    begin before anything is scored. What has nothing to count is a `phase`. Where nothing was said
    for half a minute, inside of `with`, a line says that it goes on.
    """

    def __init__(self, tell: Say, unit: str = "expert", name: str = "") -> None:
        """Shows `unit`s by `tell`; where several things are scored, `name` says which this is."""
        self.tell, self.unit, self.name = tell, unit, name
        self.terminal = tell is say and sys.stderr.isatty()
        self.bar: Any = None
        self.stage, self.tokens = "", 0
        self.began: float | None = None
        self.first, self.tenth = 0, -1
        self.doing, self.counted = "", ""
        self.since = self.said = time.monotonic()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        """Returns it; leaving closes the bar."""
        if self.tell is not quiet:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the bar."""
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join()
        self._close()

    def phase(self, text: str) -> None:
        """Says what begins now."""
        self._close()
        self._begin(text)
        self._say(text)

    def __call__(self, now: "SearchProgress") -> None:
        """Shows how far a search is."""
        if now.stage != self.stage:
            self._close()
            self.stage, self.tokens = now.stage, now.tokens or 0
            self.unit = now.unit
            self._begin(now.stage)
            self._say(f"{now.stage}: {now.total} {self.unit}s")
        tokens = (now.tokens or 0) - self.tokens
        seen = [f"{tokens / self._seconds():,.0f} tokens/s"] if tokens else []
        seen += [f"best {now.best:.4g}"] if now.best is not None else []
        seen += [f"base {now.base:.4g}"] if now.base is not None else []
        self._show(now.done, now.total, seen)

    def points(self, done: int, total: int) -> None:
        """Shows how far a landscape is."""
        self._show(done, total, ())

    def _begin(self, doing: str) -> None:
        self.doing, self.counted, self.since = doing, "", time.monotonic()
        self.began, self.tenth = None, -1

    def _watch(self) -> None:
        """Says every half minute in which nothing was said that the work goes on."""
        while not self._ended.wait(min(1.0, SECONDS_OF_SILENCE)):
            now = time.monotonic()
            if now - self.said < SECONDS_OF_SILENCE:
                continue
            if self.bar is not None:
                self.said = now
                self.bar.refresh()
            elif self.doing:
                self._say(f"still {self.doing}{self.counted}, {now - self.since:.0f} s")

    def _show(self, done: int, total: int, seen: Sequence[str]) -> None:
        self.counted = f", {done}/{total} {self.unit}s"
        if self.began is None:
            self.began, self.first = time.monotonic(), done
            if done:
                self._say(f"{done} of {total} {self.unit}s are in the log")
        tenth = 10 * done // total
        if self.terminal:
            self._show_bar(done, total, seen)
        elif tenth != self.tenth and done != self.first:
            self.tenth = tenth
            rate = (done - self.first) / self._seconds()
            facts = [f"{done}/{total} {self.unit}s", f"{rate:.1f}/s", *seen]
            self._say(", ".join([*facts, f"{(total - done) / rate:.0f} s left"]))

    def _show_bar(self, done: int, total: int, seen: Sequence[str]) -> None:
        if self.bar is None:
            import tqdm

            self.bar = tqdm.tqdm(
                desc=self.name or None, total=total, initial=done, unit=self.unit, smoothing=0.1
            )
        self.bar.set_postfix_str(", ".join(seen), refresh=False)
        self.bar.update(done - self.bar.n)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text: str) -> None:
        self.said = time.monotonic()
        self.tell(f"{self.name}: {text}" if self.name else text)

    def _seconds(self) -> float:
        began = time.monotonic() if self.began is None else self.began
        return max(time.monotonic() - began, 1e-9)
