"""What can be run: each task is one module with data, a base model, a score and its answers.

A task module has:

* `Options`, a frozen dataclass that extends `tasks.Options`: the task's own command-line
  options, with its defaults for the common ones;
* `build(options, tell=quiet) -> Task`: makes the data and the base parameters, and tells what
  takes long when it begins;
* optionally `draw(record, folder) -> list[tuple[str, str]]`: figures of its own, from the run
  record alone, returned as (file name, caption);
* optionally `base_params(options)`: θ alone, where it costs less than `build`; and
  `save(options, params, folder, notes)`: an expert as a checkpoint of the task's own format.

The registry names modules and imports none of them, so listing the tasks costs nothing.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from thicket_jax.errors import ArgumentError, check_choice, check_count
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import PRNGS, check_num, check_sigmas
from thicket_jax.search.problem import Problem, check_ks

CACHE = "thicket_jax"
_SEEDS = 2**32  # JAX takes a seed's lowest 32 bits: any other one is one of these again
_OUTCOME_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options every task shares; a task's `Options` overrides defaults and adds its own."""

    num: int = 1000
    """Number of experts to sample (N)."""
    k: tuple[int, ...] = (10,)
    """Ensemble sizes to report; the largest number of experts is kept."""
    sigma: tuple[float, ...] = (0.002,)
    """Standard deviations of the perturbation; several are dealt out in turn."""
    noise: str = "gaussian"
    """Noise law: gaussian, rademacher, tied_gaussian or low_rank."""
    rank: int = 1
    """Rank of each matrix' noise, with --noise low_rank."""
    factors: str = "gaussian"
    """Law of the two factors, with --noise low_rank: gaussian or rademacher."""
    rounded: bool | None = None
    """With --noise low_rank: round the steps of matrices where they meet 16 bits; default: yes, but
    not for language models held in 16 bits, which would be built for every expert."""
    scale: str = "absolute"
    """absolute, relative (to each leaf's root mean square), or modular (σ is a step's norm)."""
    masses: str | None = None
    """With --scale modular: EXPRESSION=FACTOR on sigma for the leaves in whose path the regular
    expression is found; several with commas, the first that is found counts."""
    where: str | None = None
    """Regular expression on leaf paths; default: every floating leaf."""
    antithetic: bool = False
    """Sample pairs +ε and −ε that share an id."""
    prng: str = "threefry2x32"
    """PRNG implementation: threefry2x32 or threefry4x32."""
    seed: int = 0
    """Seed of the population, and of the task's data and base model."""
    train_items: int = 256
    """Items that score the experts."""
    test_items: int = 256
    """Held-out items on which base, best expert and ensembles are compared."""
    precision: str = "float32"
    """float32 or bfloat16: the dtype in which the model computes."""
    cache: str | None = None
    """Folder for pretrained base models, prepared data sets and compiled programs; default: the
    user's cache, $XDG_CACHE_HOME/thicket_jax or ~/.cache/thicket_jax."""

    PRECISIONS: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")

    def resolved(self) -> "Options":
        """Returns the options with every default that depends on another option filled in."""
        return self

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work, whatever the data and the base model are.

        Of resolved options. It costs nothing, reads nothing and touches no device.
        """
        check_num(self.num, self.antithetic)
        check_ks(self.k, self.num)
        check_sigmas(self.sigma)
        self.law()
        if self.prng not in PRNGS:
            raise ArgumentError(f"prng={self.prng!r} is refused; choose one of: {', '.join(PRNGS)}")
        check_seed(self.seed)
        check_count("train_items", self.train_items)
        check_count("test_items", self.test_items)
        check_choice("precision", self.precision, self.PRECISIONS)
        outcomes, memory = _OUTCOME_BYTES * self.num * self.train_items, memory_bytes()
        if outcomes > memory:
            raise ArgumentError(
                f"num={self.num} experts on train_items={self.train_items} are "
                f"{outcomes / 2**30:,.0f} GiB of outcomes, and the machine has "
                f"{memory / 2**30:,.0f}; lower one of them"
            )

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why: the rest of a sentence.

        The command line refuses them where they are given, whatever their values are.
        """
        found = {}
        if not self.law().factored:
            found = dict.fromkeys(("rank", "factors", "rounded"), "belongs to --noise low_rank")
        if not self.law().oriented:
            found["masses"] = "belongs to --scale modular"
        return found

    def law(self) -> Noise:
        """Returns the noise law that the options name."""
        return Noise(
            self.noise,
            self.where,
            self.scale,
            rank=self.rank,
            factors=self.factors,
            masses=_masses(self.masses),
            rounded=self.rounded is not False,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the options as a JSON object, without those that the noise law does not have."""
        values = dataclasses.asdict(self)
        for name in {"rank", "factors", "rounded"} - self.law().options_json().keys():
            del values[name]
        if self.masses is None:
            del values["masses"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def cache_folder(self) -> pathlib.Path:
        """Returns the folder for base models and prepared data sets."""
        if self.cache is not None:
            return pathlib.Path(self.cache).expanduser().resolve()
        return pathlib.Path.home() / ".cache" / CACHE


Tell = Callable[[str], None]
"""Takes a line on what begins now."""


def quiet(text: str) -> None:
    """Says nothing."""
    del text


def check_seed(seed: int) -> None:
    """Raises `ArgumentError` unless the seed is one of those that differ from each other."""
    if not 0 <= seed < _SEEDS:
        raise ArgumentError(
            f"seed={seed} must be 0 to {_SEEDS - 1}; others would be one of these again"
        )


def check_seconds(name: str, seconds: float) -> None:
    """Raises `ArgumentError` unless a time limit is above zero and a day at most."""
    if not 0 < seconds <= 86400:
        raise ArgumentError(f"{name}={seconds} must be above 0, and 86400 (a day) at most")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Returns the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _masses(text: str | None) -> tuple[tuple[str, float], ...]:
    """Reads --masses; an expression may hold commas and equals signs, a factor may not."""
    if text is None:
        return ()
    found = list(re.finditer(r"([^=,].*?)=([^=,]*)(?:,(?=.)|$)", text))
    try:
        if "".join(match[0] for match in found) != text or not found:
            raise ValueError
        return tuple((match[1], float(match[2])) for match in found)
    except ValueError:
        raise ArgumentError(
            f"--masses {text!r} must be EXPRESSION=FACTOR, several with commas, such as embed=0.5"
        ) from None


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, built: what is searched, and what its run says of it.

    Attributes:
      name: of the task.
      model: one line: what the base model is.
      problem: what is searched; the first of its combine rules is the default.
      notes: sentences that the report must say.
      provenance: JSON values.
      close: ends what `build` started.
    """

    name: str
    model: str
    problem: Problem
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    close: Callable[[], None] | None = None
