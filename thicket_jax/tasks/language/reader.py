"""What the decoder returned → texts, answers and outcomes.

Shapes: n experts, B items.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.scoring.scores import TIMED_OUT, Graded
from thicket_jax.text import endings, prompts
from thicket_jax.text.grading import Graders


def items_digest(
    grader: str, items: Sequence[Mapping[str, Any]], ends: Sequence[str] = ()
) -> np.ndarray:
    """Returns uint8 [32], a digest of where texts end and what they are graded against.

    It is a leaf of every batch that no program reads: a run's fingerprint changes with it, and a
    run with other right answers is not resumed. `ends` are those of `prompting.Asked.endings`.
    """
    told = [grader, items, *([list(ends)] if ends else [])]  # runs from before have none
    said = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(hashlib.sha256(said.encode()).digest(), np.uint8)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Generated tokens of a batch → answers and outcomes, in the graders' processes.

    Attributes:
      graders: of all items.
      tokenizer: the checkpoint's.
      eos_ids: any of them ends a text.
      stops: a text ends before any of them.
      sizes: number of items of each batch: the training batch, then the test batches.
    """

    graders: Graders
    tokenizer: prompts.Tokenizer
    eos_ids: tuple[int, ...]
    stops: tuple[str, ...]
    sizes: tuple[int, ...]

    def __call__(self, batch: int, outputs: Mapping[str, np.ndarray]) -> Graded:
        """Returns [n, B] of a batch, by its number, and of what the decoder made of it.

        Raises:
          ScoreError: the grader raised.
        """
        first, count = sum(self.sizes[:batch]), self.sizes[batch]
        tokens = prompts.unlay(np.asarray(outputs["tokens"]), count)
        finite = prompts.unlay(np.asarray(outputs["finite"]), count)
        texts, lengths = endings.texts(self.tokenizer, tokens, self.eos_ids, self.stops)
        n = len(texts)
        pairs = [(first + j, texts[i, j]) for i in range(n) for j in range(count)]
        try:
            outcomes = self.graders.grade(pairs)
        except ScoreError as error:
            numbered = f"items are numbered from 0, the {self.sizes[0]} training items first"
            raise ScoreError(f"{error}; {numbered}") from error
        items = np.array([outcome.score for outcome in outcomes], np.float32).reshape(n, count)
        found = np.empty(n * count, object)
        found[:] = [outcome.answer for outcome in outcomes]
        columns = {
            name: np.array([o.columns[name] for o in outcomes], np.float32).reshape(n, count)
            for name in outcomes[0].columns
        }
        late = np.array([outcome.timed_out for outcome in outcomes], np.float32).reshape(n, count)
        if late.any():  # runs without time-outs have no such column
            columns[TIMED_OUT] = late
        return Graded(
            items=np.where(finite, items, np.float32(np.nan)),
            answers=found.reshape(n, count),
            columns={**columns, "tokens": lengths.astype(np.float32)},
            texts=texts,
        )
