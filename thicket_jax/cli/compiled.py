"""Compiled programs kept between runs: the second run of the same shapes compiles nothing."""

import collections
import dataclasses
import hashlib
import pathlib
import platform

import jax

_ASKED = "/jax/compilation_cache/compile_requests_use_cache"
_FOUND = "/jax/compilation_cache/cache_hits"


_EVENTS: collections.Counter[str] = collections.Counter()
_LISTENING: list[bool] = []


@dataclasses.dataclass(frozen=True)
class Tally:
    """How many programs were asked of the cache since a moment, and how many it had."""

    before: collections.Counter[str]

    @property
    def asked(self) -> int:
        """Programs that were needed."""
        return _EVENTS[_ASKED] - self.before[_ASKED]

    @property
    def found(self) -> int:
        """Programs that were there."""
        return _EVENTS[_FOUND] - self.before[_FOUND]

    def line(self) -> str:
        """Returns it as a sentence; empty where nothing was asked."""
        if not self.asked:
            return ""
        if self.found == self.asked:
            return f"compiled nothing: all {self.asked} programs were in the cache"
        return f"compiled {self.asked - self.found} programs, {self.found} were in the cache"


def _count(event: str, **_: object) -> None:
    _EVENTS[event] += 1


def keep(folder: pathlib.Path) -> Tally:
    """Keeps every compiled program under `folder`, and reads those that are there.

    A cache that the user has configured (`jax_compilation_cache_dir`) stays as it is. Programs for
    a CPU are kept by its features, since a home directory may be shared by different machines.

    Returns:
      A tally from now on.
    """
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        place = folder / "compiled" / _machine()
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if not _LISTENING:
        jax.monitoring.register_event_listener(_count)
        _LISTENING.append(True)
    return Tally(_EVENTS.copy())


def _machine() -> str:
    """Names the kind of CPU: eight digits of the hash of its architecture and features."""
    features = platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        named = ("flags", "Features", "model name")
        features += "".join(sorted({x for x in lines if x.startswith(named)}))
    except OSError:
        features += platform.processor()
    return hashlib.sha256(features.encode()).hexdigest()[:8]
