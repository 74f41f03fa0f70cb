"""The options that every language-model task has."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from thicket_jax.errors import ArgumentError, check_choice, check_count
from thicket_jax.experts.low_rank import LowRank
from thicket_jax.tasks import task
from thicket_jax.text.config import DTYPES, read_config
from thicket_jax.text.templates import arguments, has_template

_KS = (1, 10, 50)
_WORKERS_PER_CORE = 8
_TEMPERATURES = 1e-3, 1e3
DRAFTS = ("none", "order", "base")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
# Options that a record has only where they are not these, as records from before have none.
_LATER = {
    "template": [],
    "few_shot": 0,
    "stop": [],
    "task_stops": None,
    "temperature": 0.0,
    "draft": "none",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(task.Options):
    """The options of every language-model task."""

    model: str = ""
    """Checkpoint folder with its tokenizer; README lists the families (Llama, Qwen, Gemma, ...)."""
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
    template: tuple[str, ...] = ()
    """KEY=VALUE for the chat template, such as enable_thinking=false; a value is JSON, or else
    text."""
    few_shot: int = 0
    """Worked examples before every prompt, the same for all, from rows of the training file that
    are neither training nor test items."""
    stop: tuple[str, ...] = ()
    r"""Text before which an answer ends, beside the task's own; \n in it is a line break."""
    task_stops: bool | None = None
    """End answers before the task's own stop strings, at which a base model goes on to its next
    question (the report has them); default: where no chat template is applied."""
    temperature: float = 0.0
    """Temperature of the answers to training items, which experts are selected by; 0 is greedy, as
    answers to test items always are."""
    rows: int = 0
    """Prompts decoded side by side for each expert; 0 fits them to the memory."""
    draft: str = "none"
    """What is made of the base's answers to the training items, which are decoded first: order puts
    prompts of long answers first; base, besides, tries them as the beginning of experts' answers,
    which costs time on a CPU and is not measured elsewhere; none. Tokens are the same."""
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
    STOPS: ClassVar[tuple[str, ...]] = ("\nQuestion:",)
    """The task's own stop strings: how its next question would begin."""

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
        if found.task_stops is None and self.STOPS:
            template = has_template(found.model) if self.chat is None else self.chat
            found = dataclasses.replace(found, task_stops=not template)
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
        for name in ("rows", "grade_workers", "few_shot"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must be 0 or more")
        most = _WORKERS_PER_CORE * task.cores()
        if self.grade_workers > most:
            raise ArgumentError(
                f"grade_workers={self.grade_workers} is more than {most}, {_WORKERS_PER_CORE} for "
                "each core here"
            )
        low, high = _TEMPERATURES
        for name, zero in (("sample_temperature", ""), ("temperature", "0 (greedy), or ")):
            value = getattr(self, name)
            if not (low <= value <= high or (zero and value == 0)):
                raise ArgumentError(f"{name}={value} must be {zero}{low} to {high}")
        check_choice("draft", self.draft, DRAFTS)
        arguments(self.template)
        stop_strings(self.stop)
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
        if self.temperature:
            found["draft"] = "is of no use where answers to training items are sampled"
        if self.chat is False:
            found["template"] = "belongs to a chat template, and prompts are plain text here"
        if not self.STOPS:
            found["task_stops"] = "is of no use: this task has no stop strings of its own"
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the options as a JSON object; those of `_LATER` only where they do something."""
        values = super().to_json()
        return {name: x for name, x in values.items() if name not in _LATER or x != _LATER[name]}

    def stops(self) -> tuple[str, ...]:
        """Returns the stop strings, those of the task first."""
        own = self.STOPS if self.task_stops else ()
        return tuple(dict.fromkeys((*own, *stop_strings(self.stop))))


def absolute(path: str) -> str:
    """Returns a path that stays right when a run is resumed from another folder."""
    return str(pathlib.Path(path).expanduser().resolve())


def stop_strings(words: Sequence[str]) -> tuple[str, ...]:
    r"""Returns the texts that --stop names: \n, \t, \r and \\ are read as what they stand for.

    Raises:
      ArgumentError: one is empty, or there twice.

    Example:
      >>> stop_strings([r"\nQuestion:", "###"])
      ('\nQuestion:', '###')
    """
    found = [re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match[1]], word) for word in words]
    for word in found:
        if not word:
            raise ArgumentError("--stop is empty; give it a text, or leave it out")
        if found.count(word) > 1:
            raise ArgumentError(f"--stop {word!r} is there twice; give it once")
    return tuple(found)
