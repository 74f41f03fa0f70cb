"""The options that every language-model task has."""

import dataclasses
import pathlib
from typing import ClassVar, Self

import numpy as np

from thicket_jax.errors import ArgumentError, check_count
from thicket_jax.experts.low_rank import LowRank
from thicket_jax.tasks import task
from thicket_jax.text.config import DTYPES, read_config

_KS = (1, 10, 50)
_WORKERS_PER_CORE = 8
_TEMPERATURES = 1e-3, 1e3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(task.Options):
    """The options of every language-model task."""

    model: str = ""
    """Checkpoint folder (Llama, Mistral, Qwen2, Qwen3, OLMo-2, OLMo-3) with its tokenizer."""
    data: str | None = None
    """Data file, or folder with train and test files; JSONL, JSON, CSV or parquet."""
    test_data: str | None = None
    """Test file, where it is not in the folder --data."""
    num: int = 500
    """Number of experts to sample (N)."""
    k: tuple[int, ...] | None = None  # type: ignore[assignment]  # `resolved` fills it in
    """Ensemble sizes to report; default 1, 10 and 50, as far as there are experts."""
    sigma: tuple[float, ...] = (0.001, 0.002, 0.003)
    """Standard deviations of the perturbation; several are dealt out in turn."""
    train_items: int = 200
    """Items that score the experts."""
    test_items: int | None = None  # type: ignore[assignment]  # `resolved` fills it in
    """Held-out items; default as many as training items."""
    precision: str = "auto"
    """float32, bfloat16 or float16; auto is the checkpoint's own."""
    max_tokens: int = 256
    """Tokens that are generated at most for an answer."""
    chat: bool | None = None
    """Apply the tokenizer's chat template; default: if it has one."""
    system: str | None = None
    """System message, or a paragraph before the prompt where no template is applied."""
    rows: int = 0
    """Prompts decoded side by side for each expert; 0 fits them to the memory."""
    sample_temperature: float = 0.7
    """Temperature of the sampled base, the self-consistency baseline."""
    sample_top_p: float = 1.0
    """Probability that the sampled base's tokens are drawn from."""
    grade_workers: int = 0
    """Processes that grade answers; 0 is one per core, 8 at most."""
    grade_seconds: float = 10.0
    """Seconds that grading one answer may take."""
    allow_test_selection: bool = False
    """Allow experts to be selected on a published test set; the report says so."""

    PRECISIONS: ClassVar[tuple[str, ...]] = ("auto", *DTYPES)

    def resolved(self) -> Self:
        """Returns the options with paths made absolute and defaults filled in.

        Raises:
          ArgumentError: an option that cannot work, whatever the model and the data are.
          DataError: the model has no config.json that can be read, where it says the dtype.
        """
        if not self.model:
            raise ArgumentError(
                "--model is missing; give the folder of a checkpoint: config.json, safetensors and "
                "tokenizer files"
            )
        k = self.k
        if k is None:
            k = tuple(size for size in _KS if size <= self.num) or (1,)
        found = dataclasses.replace(
            self,
            model=absolute(self.model),
            data=None if self.data is None else absolute(self.data),
            test_data=None if self.test_data is None else absolute(self.test_data),
            k=k,
            test_items=self.train_items if self.test_items is None else self.test_items,
        )
        found.check()
        if found.rounded is None and found.noise == LowRank.name:
            auto = found.precision == "auto"
            dtype = read_config(found.model).dtype if auto else found.precision
            if dtype != "float32":
                found = dataclasses.replace(found, rounded=False)
        return found

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_count("max_tokens", self.max_tokens)
        for name in ("rows", "grade_workers"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must be 0 or more")
        most = _WORKERS_PER_CORE * task.cores()
        if self.grade_workers > most:
            raise ArgumentError(
                f"grade_workers={self.grade_workers} is more than {most}, {_WORKERS_PER_CORE} for "
                "each core here"
            )
        low, high = _TEMPERATURES
        if not low <= self.sample_temperature <= high:
            raise ArgumentError(
                f"sample_temperature={self.sample_temperature} must be {low} to {high}"
            )
        task.check_seconds("grade_seconds", self.grade_seconds)
        if not float(np.finfo(np.float32).tiny) <= self.sample_top_p <= 1:
            raise ArgumentError(
                f"sample_top_p={self.sample_top_p} must be above 0 (in float32), and 1 at most"
            )

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why."""
        found = super().unread()
        if self.data is None:
            names = ("test_data", "allow_test_selection")
            found |= dict.fromkeys(names, "belongs to --data")
        return found


def absolute(path: str) -> str:
    """Returns a path that stays right when a run is resumed from another folder."""
    return str(pathlib.Path(path).expanduser().resolve())
