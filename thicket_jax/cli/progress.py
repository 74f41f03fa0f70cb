"""What a command says while it works."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thicket_jax.runs import strings

if TYPE_CHECKING:
    from thicket_jax.search.problem import SearchProgress

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
    """Shows how far scoring is: a bar on a terminal, a line every tenth elsewhere.

    Called with a search's own record, or, by `points`, with counts alone; both are told where they
    begin before anything is scored.
    """

    def __init__(self, tell: Say, unit: str = "expert", name: str = "") -> None:
        """Shows `unit`s by `tell`; where several things are scored, `name` says which this is."""
        self.tell, self.unit, self.name = tell, unit, name
        self.terminal = tell is say and sys.stderr.isatty()
        self.bar: Any = None
        self.stage, self.tokens = "", 0
        self.began: float | None = None
        self.first, self.tenth = 0, -1

    def __enter__(self) -> "Progress":
        """Returns it; leaving closes the bar."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the bar."""
        self._close()

    def __call__(self, now: "SearchProgress") -> None:
        """Shows how far a search is."""
        if now.stage != self.stage:
            self._close()
            self.stage, self.tokens = now.stage, now.tokens or 0
            self.began, self.tenth = None, -1
            self._say(f"{now.stage}: {now.total} {self.unit}s")
        tokens = (now.tokens or 0) - self.tokens
        seen = [f"{tokens / self._seconds():,.0f} tokens/s"] if tokens else []
        seen += [f"best {now.best:.4g}"] if now.best is not None else []
        seen += [f"base {now.base:.4g}"] if now.base is not None else []
        self._show(now.done, now.total, seen)

    def points(self, done: int, total: int) -> None:
        """Shows how far a landscape is."""
        self._show(done, total, ())

    def _show(self, done: int, total: int, seen: Sequence[str]) -> None:
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
        self.tell(f"{self.name}: {text}" if self.name else text)

    def _seconds(self) -> float:
        began = time.monotonic() if self.began is None else self.began
        return max(time.monotonic() - began, 1e-9)
