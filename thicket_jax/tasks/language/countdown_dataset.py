"""Countdown puzzles that have a solution, drawn from a seed: a tensorflow-datasets builder.

A puzzle gives three or four numbers; all of them, each once, with + - * / and parentheses, make
the target. It is made backwards: two values at random become one by an operation, until one is
left, and that is the target. Every value on the way is a whole number above zero.
"""

import functools
import hashlib
import pathlib
import random
from collections.abc import Iterator
from typing import Any, Literal

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks.quiet import quietly

SIZES = (3, 4)  # how many numbers
LARGEST = 99  # numbers are 1 to this
TARGETS = (10, 999)
RECIPE = "1.0.0"  # the version of `puzzles`: another one draws other puzzles

_SMALLEST_SET = 1024  # a set is prepared for this many a part, or a power of two times as many
_PATIENCE = 100_000  # draws without a new puzzle after which there are no more

Part = Literal["train", "test"]
Puzzle = dict[str, Any]
"""`numbers` (a list of int), `target` (int) and `solution` (text)."""


def puzzles(
    num: int, seed: int, part: Part | None = None, *, sizes: tuple[int, ...] = SIZES
) -> list[Puzzle]:
    """Draws different puzzles, each with a solution.

    The first puzzles of a longer list are those of a shorter one. Two puzzles are the same if they
    have the same numbers in any order and the same target. Which part a puzzle is in does not
    depend on the seed: training and test puzzles never meet, whatever they were drawn with.

    Args:
      num: how many.
      seed: any integer.
      part: "train" or "test": only puzzles of that half of all there are; None: all.
      sizes: how many numbers a puzzle has; each is as likely.

    Raises:
      ArgumentError: an argument cannot work.
      DataError: there are not so many different puzzles.

    >>> puzzle = puzzles(1, seed=0)[0]
    >>> puzzle["numbers"], puzzle["target"], puzzle["solution"]
    ([98, 54, 6, 34], 180, '98 + ((54 + 34) - 6)')
    """
    if num < 1 or not sizes or min(sizes) < 2:
        raise ArgumentError(f"num={num} must be at least 1, and sizes={sizes} at least 2 each")
    draw = random.Random(seed % 2**64)
    found: dict[str, Puzzle] = {}
    idle = 0  # draws since the last new puzzle
    while len(found) < num:
        puzzle = _draw(draw, draw.choice(sizes))
        idle += 1
        if puzzle is not None and (part is None or part_of(puzzle) == part):
            key = _key(puzzle)
            if key not in found:
                found[key], idle = puzzle, 0
        if idle > _PATIENCE:
            raise DataError(f"{num} countdown puzzles were asked for, and {len(found)} were found")
    return list(found.values())


def part_of(puzzle: Puzzle) -> Part:
    """Returns the half that a puzzle belongs to, by a hash of its numbers and target."""
    return "test" if hashlib.sha256(_key(puzzle).encode()).digest()[0] % 2 else "train"


def open_puzzles(
    folder: str | pathlib.Path, train: int, test: int, seed: int
) -> tuple[list[Puzzle], list[Puzzle]]:
    """Returns training and test puzzles, prepared the first time and read from then on.

    Args:
      folder: where prepared data sets are kept.
      train: number of training puzzles; the same ones first, whatever the number.
      test: number of test puzzles, likewise.
      seed: what they are drawn from.

    Raises:
      ArgumentError: a number is below 1.
      DataError: the folder cannot be written, or what was prepared there is damaged.
    """
    if train < 1 or test < 1:
        raise ArgumentError(f"train={train} and test={test} puzzles must be at least 1 each")
    size = _SMALLEST_SET
    while size < max(train, test):
        size *= 2
    place = pathlib.Path(folder).expanduser()
    with quietly():
        builder = _builder_class()(place, size, seed % 2**64)
        _prepare(builder, place)
        return _read(builder, "train", train), _read(builder, "test", test)


def _draw(draw: random.Random, size: int) -> Puzzle | None:
    """One puzzle, or None if its target is out of range."""
    numbers = [draw.randint(1, LARGEST) for _ in range(size)]
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        # The larger value first: no difference is negative, and a quotient can be whole.
        (a, left), (b, right) = sorted(
            (parts.pop(draw.randrange(len(parts))) for _ in range(2)), reverse=True
        )
        values = {"+": a + b, "*": a * b}
        if a > b:
            values["-"] = a - b
        if a % b == 0:
            values["/"] = a // b
        operation = draw.choice(sorted(values))
        parts.append((values[operation], f"({left} {operation} {right})"))
    target, solution = parts[0]
    if not TARGETS[0] <= target <= TARGETS[1]:
        return None
    return {"numbers": numbers, "target": target, "solution": solution[1:-1]}


def _key(puzzle: Puzzle) -> str:
    return f"{sorted(puzzle['numbers'])} {puzzle['target']}"


@functools.cache
def _builder_class() -> Any:
    """The builder; made when it is used, because tensorflow-datasets takes long to import."""
    import numpy as np
    import tensorflow_datasets as tfds

    class Countdown(tfds.core.GeneratorBasedBuilder):
        """Splits `train` and `test` of as many puzzles each, in the order in which they are drawn.

        Prepared with `file_format="array_record"` and read with `as_data_source`; neither needs
        TensorFlow.
        """

        VERSION = tfds.core.Version(RECIPE)
        # No downloads, so no checksums to look up.
        url_infos: Any = {}  # noqa: RUF012

        def __init__(self, folder: pathlib.Path, size: int, seed: int) -> None:
            self._drawn = (size, seed)
            config = tfds.core.BuilderConfig(name=f"seed-{seed}-size-{size}")
            super().__init__(data_dir=folder, config=config, file_format="array_record")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description="Countdown puzzles, each with a solution that uses every number once.",
                features=tfds.features.FeaturesDict(
                    {
                        "numbers": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                        "target": tfds.features.Scalar(dtype=np.int32),
                        "solution": tfds.features.Text(),
                    }
                ),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Puzzle]]]:
            del dl_manager  # nothing is downloaded
            return {part: self._generate_examples(part) for part in ("train", "test")}

        def _generate_examples(self, part: Part) -> Iterator[tuple[int, Puzzle]]:
            size, seed = self._drawn
            yield from enumerate(puzzles(size, seed, part))

    return Countdown


def _prepare(builder: Any, folder: pathlib.Path) -> None:
    if builder.is_prepared():
        return
    if pathlib.Path(builder.data_path).exists():
        raise _damaged(builder, "it has no readable dataset_info.json")
    try:
        builder.download_and_prepare()
    except Exception as error:  # a full disk, a folder that cannot be written
        if builder.is_prepared():  # another process was first to rename its own into place
            return
        raise DataError(
            f"countdown puzzles cannot be prepared in {folder}: {_first_line(error)}; name another "
            "folder with --cache"
        ) from error


def _read(builder: Any, part: Part, count: int) -> list[Puzzle]:
    try:
        source = builder.as_data_source(split=part)
        items = source.__getitems__(range(count))
        found = [
            {
                "numbers": [int(number) for number in item["numbers"]],
                "target": int(item["target"]),
                "solution": item["solution"].decode(),
            }
            for item in items
        ]
    except Exception as error:  # whatever a reader makes of missing or damaged files
        raise _damaged(builder, _first_line(error)) from error
    if len(found) != count or any(part_of(puzzle) != part for puzzle in found):
        raise _damaged(builder, f"{len(found)} puzzles, or not those of its part")
    return found


def _damaged(builder: Any, reason: str) -> DataError:
    return DataError(
        f"the prepared puzzles in {builder.data_path} are damaged ({reason}); delete that folder "
        "and run again"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
