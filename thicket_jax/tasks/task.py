"""What can be run: each task is one module with data, a base model, a score and its answers.

A task module has:

* `Options`, a frozen dataclass that extends `tasks.Options`: the task's own command-line
  options, with its defaults for the common ones;
* `build(options) -> Task`: makes the data and the base parameters;
* optionally `draw(record, folder) -> list[tuple[str, str]]`: figures of its own, from the run
  record alone, returned as (file name, caption);
* optionally `base_params(options)`: θ alone, where it costs less than `build`; and
  `save(options, params, folder, notes)`: an expert as a checkpoint of the task's own format.

The registry names modules and imports none of them, so listing the tasks costs nothing.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from thicket_jax.errors import ArgumentError
from thicket_jax.experts.noise import Noise
from thicket_jax.search.problem import Problem


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
    """Folder for pretrained base models and prepared data sets; default: the user's cache."""

    def resolved(self) -> "Options":
        """Returns the options with every default that depends on another option filled in."""
        return self

    def law(self) -> Noise:
        """Returns the noise law that the options name."""
        return Noise(
            self.noise,
            self.where,
            self.scale,
            rank=self.rank,
            factors=self.factors,
            masses=_masses(self.masses),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the options as a JSON object, without those that the noise law does not have."""
        values = dataclasses.asdict(self)
        for name in {"rank", "factors"} - self.law().options_json().keys():
            del values[name]
        if self.masses is None:
            del values["masses"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def cache_folder(self) -> pathlib.Path:
        """Returns the folder for base models and prepared data sets."""
        if self.cache is not None:
            return pathlib.Path(self.cache).expanduser().resolve()
        return pathlib.Path.home() / ".cache" / "thicket_jax"


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
