"""The lines as a tensorflow-datasets builder, and as arrays of tokens."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.density_scaling.puzzles import LETTERS, TASKS, WIDTH, lines, mixture
from thicket_jax.errors import DataError
from thicket_jax.tasks.quiet import quietly

VERSION = "1.0.0"  # another version draws other lines
ALPHABET = "." + "0123456789" + LETTERS + "+*=,()[]<>-yn" + "".join(x for x, _ in TASKS.values())
"""Token i is character i; 0, the full stop, also fills up."""
VOCABULARY = 48  # rounded up; the last ones are never seen

Lines = dict[str, np.ndarray]
"""`tokens` int32 [n, WIDTH] and `answer` bool [n, WIDTH], which tokens are the answer's."""


def read_lines(
    folder: pathlib.Path, train: int, test: int, seed: int
) -> tuple[Lines, dict[str, Lines]]:
    """Returns training lines and each task's test lines, prepared the first time.

    Args:
      folder: where prepared data sets are kept.
      train: training lines, all tasks in turn.
      test: test lines of each task.
      seed: what they are drawn from.

    Raises:
      DataError: the folder cannot be written, or what was prepared there is damaged.
    """
    with quietly():
        builder = _builder_class()(folder, train, test, seed)
        try:
            if not builder.is_prepared():
                builder.download_and_prepare()
            found = {part: _read(builder, part) for part in ("train", "test")}
        except Exception as error:  # whatever a full disk or a damaged file makes a reader say
            said = " ".join(str(error).split())[:200]
            raise DataError(
                f"the data set in {builder.data_path} cannot be made or read "
                f"({type(error).__name__}: {said}); delete it, or name another --cache"
            ) from error
    tests = {}
    for name, (letter, _) in TASKS.items():
        tests[name] = encode([line for line in found["test"] if line[0] == letter])
    return encode(found["train"]), tests


def encode(texts: list[str]) -> Lines:
    """Returns lines as tokens, filled up to WIDTH, with the answers (and their stop) marked.

    Example:
      >>> found = encode(["A10+20=30."])
      >>> found["answer"][0].sum(), found["tokens"].shape
      (np.int64(3), (1, 19))
    """
    where = {character: i for i, character in enumerate(ALPHABET)}
    tokens = np.zeros((len(texts), WIDTH), np.int32)
    answer = np.zeros((len(texts), WIDTH), bool)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = [where[character] for character in text]
        answer[row, text.index("=") + 1 : len(text)] = True
    return {"tokens": tokens, "answer": answer}


def _read(builder: Any, part: str) -> list[str]:
    source = builder.as_data_source(split=part)
    return [item["line"].decode() for item in source.__getitems__(range(len(source)))]


@functools.cache
def _builder_class() -> Any:
    """The builder; made when it is used, because tensorflow-datasets takes long to import."""
    import tensorflow_datasets as tfds

    class Puzzles(tfds.core.GeneratorBasedBuilder):
        """Splits `train` (tasks in turn) and `test` (each task's own lines, all different)."""

        VERSION = tfds.core.Version(VERSION)
        # No downloads, so no checksums to look up.
        url_infos: Any = {}  # noqa: RUF012

        def __init__(self, folder: pathlib.Path, train: int, test: int, seed: int) -> None:
            self._drawn = (train, test, seed)
            config = tfds.core.BuilderConfig(name=f"seed-{seed}-train-{train}-test-{test}")
            super().__init__(data_dir=folder, config=config, file_format="array_record")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description="Nine small text tasks: a question, '=', an answer.",
                features=tfds.features.FeaturesDict({"line": tfds.features.Text()}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
            del dl_manager  # nothing is downloaded
            train, test, seed = self._drawn
            tests = [line for task in TASKS for line in lines(task, test, seed, "test")]
            return {
                "train": self._generate_examples(mixture(train, seed)),
                "test": self._generate_examples(tests),
            }

        def _generate_examples(self, texts: list[str]) -> Iterator[tuple[int, Any]]:
            yield from enumerate({"line": text} for text in texts)

    return Puzzles
