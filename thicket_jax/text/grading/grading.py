"""Texts → outcomes, in worker processes, bounded in time; and answers → classes for a vote.

A grader never runs in this process: what a model writes can make it hang, grow or crash.
"""

import collections
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, DataError, ScoreError, check_count
from thicket_jax.text.grading.pool import TIMED_OUT, Pool, Reply

_REMEMBERED = 1 << 16  # outcomes, and as many comparisons


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a grader found in one text.

    Attributes:
      answer: canonical answer; equal strings are one answer in a vote; None abstains (no answer
        was found).
      score: higher is better, usually 0 or 1; finite.
      columns: further named outcomes; one task always gives the same names.
      timed_out: whether grading it, or the program in it, ran into a time limit.
    """

    answer: str | None
    score: float
    columns: Mapping[str, float] = dataclasses.field(default_factory=dict)
    timed_out: bool = dataclasses.field(default=False, repr=False, compare=False)


class Graders:
    """Worker processes that grade texts with one grader; a context manager.

    A text that takes longer than `timeout` seconds, or kills its worker twice, has no answer and
    scores 0; `timed_out` and `died` count them. Equal texts of one item are graded once, and
    remembered (the last 65,536). Several threads may use one object, one call at a time.

    Attributes:
      timed_out: number of texts, and of comparisons, that took too long.
      died: number of texts, and of comparisons, that killed their worker.
      columns: names of the further outcomes; None until they are known.
    """

    def __init__(
        self,
        spec: str,
        items: Sequence[Mapping[str, Any]],
        *,
        workers: int | None = None,
        timeout: float = 10.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts the worker processes and returns at once; `ready` waits for the first.

        Args:
          spec: `exact`, `numeric`, `math`, `contains-word`, `module:function` or
            `path/to/file.py:function`.
          items: the task's items; what JSON holds.
          workers: number of processes; default one per core, 8 at most.
          timeout: seconds that one text may take.
          options: fields that every item has besides its own, and that win over its own.

        Raises:
          ArgumentError: `workers` or `timeout` is not a positive number.
          DataError: an item holds what JSON cannot.
        """
        if isinstance(timeout, bool) or not 0 < timeout < float("inf"):
            raise ArgumentError(f"timeout={timeout!r} must be a positive number of seconds")
        count = min(os.cpu_count() or 1, 8) if workers is None else check_count("workers", workers)
        self.spec = spec
        self.columns: tuple[str, ...] | None = None
        self.timed_out = 0
        self.died = 0
        self._rows = [_row(index, {**item, **(options or {})}) for index, item in enumerate(items)]
        self._known: collections.OrderedDict[Any, Outcome] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._same: collections.OrderedDict[Any, bool] = collections.OrderedDict()
        self._pool = Pool(spec, workers=count, timeout=float(timeout))

    def __enter__(self) -> "Graders":
        """Waits until a worker is ready."""
        try:
            self.ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kills the workers."""
        self.close()

    def close(self) -> None:
        """Kills the workers; what was graded stays."""
        self._pool.close()

    def ready(self) -> None:
        """Waits until a worker has found the grader.

        Raises:
          ArgumentError: there is no such grader, or its module cannot be imported.
          ScoreError: the worker ended, or was not ready in time.
        """
        columns = self._pool.ready()["columns"]
        if self.columns is None and columns is not None:
            self.columns = tuple(columns)

    def grade(self, texts: Sequence[tuple[int, str]]) -> list[Outcome]:
        """Grades (index of the item, generated text) pairs over all workers, in order.

        Raises:
          ArgumentError: an index that no item has.
          ScoreError: the grader raised, returned no outcome, or changed its columns.
        """
        self.ready()
        with self._lock:
            keys = [self._key(index, text) for index, text in texts]
            new = {
                key: pair for key, pair in zip(keys, texts, strict=True) if key not in self._known
            }
            indices = [index for index, _ in new.values()]
            requests = [
                f'{{"item": {self._rows[index]}, "text": {json.dumps(text)}}}'
                for index, text in new.values()
            ]
            replies = self._pool.run(requests, lambda position: f"item {indices[position]}")
            for key, index, reply in zip(new, indices, replies, strict=True):
                if isinstance(reply, dict):
                    self._known[key] = self._outcome(reply, index)
            for key, reply in zip(new, replies, strict=True):  # by now the columns have names
                if isinstance(reply, str):
                    self._count(reply)
                    zeros = dict.fromkeys(self.columns or (), 0.0)
                    self._known[key] = Outcome(None, 0.0, zeros, reply == TIMED_OUT)
            outcomes = [self._known[key] for key in keys]
            _forget(self._known)
        return outcomes

    def classes(self, answers: np.ndarray) -> np.ndarray:
        """Numbers the answers to each item that are one answer in a vote.

        Two answers are one if the grader's module has `same` and it says so (a comparison that
        takes too long says no), else if they are equal strings. Classes are the smallest that hold
        with every answer all that are the same as it, so that the answers' order does not matter.

        Args:
          answers: object (str | None) [M, B], M answers to each of B items.

        Returns:
          int32 [M, B]: 0, 1, ... for each item by first appearance; -1 for None.

        Raises:
          ScoreError: `same` raised.
        """
        self.ready()
        columns = [_Classes(column) for column in answers.T]
        with self._lock:
            while self._pool.features["same"] and any(column.open for column in columns):
                pairs = dict.fromkeys(pair for column in columns for pair in column.pairs())
                self._compare([pair for pair in pairs if pair not in self._same])
                for column in columns:
                    column.grow(self._same)
            _forget(self._same)
        numbers = np.array([column.numbers() for column in columns], np.int32)
        return numbers.reshape(answers.shape[::-1]).T

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> None:
        requests = [json.dumps({"same": pair}) for pair in pairs]
        replies = self._pool.run(
            requests, lambda position: "the answers {!r:.80} and {!r:.80}".format(*pairs[position])
        )
        for pair, reply in zip(pairs, replies, strict=True):
            if isinstance(reply, str):
                self._count(reply)
            self._same[pair] = isinstance(reply, dict) and reply["same"]

    def _key(self, index: int, text: str) -> tuple[int, bytes]:
        if not 0 <= index < len(self._rows):
            raise ArgumentError(f"item {index} is not one of the {len(self._rows)} items")
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        key = (int(index), digest)
        if key in self._known:
            self._known.move_to_end(key)
        return key

    def _outcome(self, reply: Mapping[str, Any], index: int) -> Outcome:
        columns = reply["columns"]
        if self.columns is None:
            self.columns = tuple(columns)
        if set(columns) != set(self.columns):
            found, known = (", ".join(names) or "none" for names in (columns, self.columns))
            raise ScoreError(
                f"grader {self.spec} returned the columns {found} for item {index}, but its others "
                f"are {known}; return the same names for every text"
            )
        return Outcome(
            reply["answer"], reply["score"], columns, bool(reply.get("timed_out", False))
        )

    def _count(self, reply: Reply) -> None:
        if reply == TIMED_OUT:
            self.timed_out += 1
        else:
            self.died += 1


class _Classes:
    """The classes of the answers to one item: the components of the graph that `same` makes."""

    def __init__(self, answers: np.ndarray) -> None:
        """Every distinct answer is open: in no class yet."""
        self.answers = answers
        self.open = list(dict.fromkeys(answer for answer in answers if answer is not None))
        self.classes: list[list[str]] = []
        self.asked = 0  # members of the last class whose pairs are known

    def pairs(self) -> list[tuple[str, str]]:
        """A member of the class that grows with each open answer, in one order."""
        if self.classes and self.asked < len(self.classes[-1]):
            member = self.classes[-1][self.asked]
            return [_ordered(member, other) for other in self.open]
        return [_ordered(self.open[0], other) for other in self.open[1:]]

    def grow(self, same: Mapping[tuple[str, str], bool]) -> None:
        """Adds to the class that grows, or to a new one, what is the same as its next member."""
        if not self.open:
            return
        if not self.classes or self.asked == len(self.classes[-1]):
            self.classes.append([self.open.pop(0)])
            self.asked = 0
        member = self.classes[-1][self.asked]
        self.classes[-1] += [other for other in self.open if same[_ordered(member, other)]]
        self.open = [other for other in self.open if not same[_ordered(member, other)]]
        self.asked += 1

    def numbers(self) -> list[int]:
        """The class of each answer, -1 for None; each open answer is a class of its own."""
        classes = [*self.classes, *([answer] for answer in self.open)]
        known = {answer: number for number, members in enumerate(classes) for answer in members}
        return [-1 if answer is None else known[answer] for answer in self.answers]


def _ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)


def _row(index: int, item: Mapping[str, Any]) -> str:
    try:
        return json.dumps(item)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"item {index} cannot be given to a grader: {error}; an item holds text, numbers, "
            "lists and mappings"
        ) from error


def _forget(memory: "collections.OrderedDict[Any, Any]") -> None:
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
