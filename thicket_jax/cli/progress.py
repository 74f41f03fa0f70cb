"""What a command says while it works."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thicket_jax.search.problem import Watch


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quiet(text: str) -> None:
    del text


class _Progress:
    """Shows how far a search is: a bar on a terminal, a line every ten percent elsewhere."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.tenth = say, -1
        self.bar: Any = None
        self.terminal = say is _say and sys.stderr.isatty()
        self.began: float | None = None
        self.first = 0
        self.stage, self.tokens = "", 0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, now: "Watch") -> None:
        done, total = now.done, now.total
        if now.stage != self.stage:
            self.stage, self.began, self.tenth = now.stage, None, -1
            self.tokens = now.tokens or 0
            self.say(f"{now.stage}: {total} experts")
            if self.bar is not None:
                self.bar.close()
                self.bar = None
        if self.began is None:
            self.began, self.first = time.monotonic(), done
            if done:
                self.say(f"{done} of {total} experts are in the log")
        seconds = max(time.monotonic() - self.began, 1e-9)
        tokens = (now.tokens or 0) - self.tokens
        seen = [f"{tokens / seconds:,.0f} tokens/s"] if tokens else []
        seen += [f"best {now.best:.4g}"] if now.best is not None else []
        seen += [f"base {now.base:.4g}"] if now.base is not None else []
        if self.terminal:
            if self.bar is None:
                import tqdm

                self.bar = tqdm.tqdm(total=total, initial=done, unit="expert", smoothing=0.1)
            self.bar.set_postfix_str(", ".join(seen), refresh=False)
            self.bar.update(done - self.bar.n)
            return
        tenth = 10 * done // total
        if tenth == self.tenth or done == self.first:
            return
        self.tenth = tenth
        rate = (done - self.first) / seconds
        left = (total - done) / max(rate, 1e-9)
        facts = [f"{done}/{total} experts", f"{rate:.1f}/s", *seen, f"{left:.0f} s left"]
        self.say(", ".join(facts))


Say = Callable[[str], None]


class _Teller:
    """Says how far it is, every tenth."""

    def __init__(self, name: str, say: Say) -> None:
        self.name, self.say, self.tenth, self.began = name, say, -1, time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.first is None:
            self.first = done
        tenth = 10 * done // total
        if tenth != self.tenth:
            self.tenth = tenth
            rate = (done - self.first) / max(time.monotonic() - self.began, 1e-9)
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
            self.say(f"{self.name}: {done}/{total} points{left}")
