"""Training and test items of a task, out of the files that users have, never overlapping.

A data set is one file, or a folder with a training and a test file. Training items are those that
experts are selected on. An item is what its row says: equal rows are one item, wherever they are.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.data.files import Path, find, names_test, words
from thicket_jax.text.data.rows import Column, File, Row, alternatives, read_file, read_rows

__all__ = ["Split", "names_test", "open_split", "read_rows"]

Range = Callable[[Row], Literal["train", "test"] | None]


@dataclasses.dataclass(frozen=True)
class Split:
    """Items to select on and items to test on.

    Attributes:
      train: rows of the training items, in order.
      test: rows of the test items, in order; none equals a training item.
      notes: what a report must say of the split, one sentence each.
      provenance: JSON values: each file's name, rows, SHA-256 and use, and how it was split.
      spare: the other rows of the training files, each different from all items and each other.
    """

    train: list[Row]
    test: list[Row]
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    spare: Sequence[Row] = ()


def open_split(
    data: Path,
    test_data: Path | None = None,
    *,
    needed: Sequence[Column],
    train_items: int,
    test_items: int | None,
    seed: int,
    published_test: Callable[[pathlib.Path], bool] | Collection[str] = (),
    allow_test_selection: bool = False,
    identity: Sequence[Column] | None = None,
    ranges: Range | None = None,
) -> Split:
    """Reads a data set and deals out training and test items that do not overlap.

    With a training and a test file, each gives its first items in file order, and training rows
    equal to one of the test items are left out. One file alone is shuffled (the permutation of
    numpy's `default_rng(seed)` over its different rows): training items are taken from the front
    and test items from the back, so that asking for more of one does not change the other. With
    `ranges` one file is dealt out by that rule instead, in file order.

    Args:
      data: a file, or a folder with files of which `train` or `test` is a word of the name:
        `train.jsonl`, `main/test-00000-of-00001.parquet`, several shards; or with one file alone.
      test_data: the test file, or a folder with one; default: the one in the folder `data`.
      needed: columns that every row must have; a tuple names alternatives.
      train_items: number of training items.
      test_items: number of test items; None for all there are.
      seed: of the permutation.
      published_test: which files are published test sets though their names do not say so: a
        function of the path, or names (without endings; case and punctuation do not count).
      allow_test_selection: whether to select on a published test set all the same.
      identity: the columns that make two rows one item; default: `needed`, or else all.
      ranges: row → "train", "test", or None for neither, where a data set has published ranges.

    Raises:
      DataError: a file is not what the task reads, there are too few items, or training items
        would come from a published test set.
    """
    for name, count in (("train_items", train_items), ("test_items", test_items)):
        if count is not None and count < 1:
            raise ArgumentError(f"{name}={count} must be at least 1")
    paths, test_paths = find(data, test_data)
    notes = []
    for path in paths:
        if names_test(path):
            notes.append(_selected(path, "by its name", allow_test_selection))
        elif _is_published(path, published_test):
            notes.append(_selected(path, "and has no training part", allow_test_selection))
    files = [read_file(path, needed) for path in paths]
    test_files = [read_file(path, needed) for path in test_paths]
    same = _identity(needed if identity is None else identity)
    pool, named = _rows(files), _named(paths)

    if test_files:
        how = "files"
        if ranges is not None:
            pool, note = _without_test_range(pool, named, ranges, allow_test_selection)
            notes += note
        test_pool = _rows(test_files)
    elif ranges is not None and any(ranges(row) == "train" for row in pool):
        how = "ranges"
        test_pool = [row for row in pool if ranges(row) == "test"]
        pool = [row for row in pool if ranges(row) == "train"]
    else:
        how = f"permutation of seed {seed}"
        if ranges is not None and any(ranges(row) == "test" for row in pool):
            notes.append(_selected(paths[0], "by its items' numbers", allow_test_selection))
        pool, test_pool, note = _shuffled(pool, named, same, seed, train_items, test_items)
        notes += note

    test = test_pool[:test_items]
    test_named = _named(test_paths) if test_paths else named
    if len(test) < (test_items or 1):
        raise _too_few(test_named, len(test_pool), f"test items ({how})", test_items or 1)
    chosen = set(map(same, test))
    train = [row for row in pool if same(row) not in chosen]
    if dropped := len(pool) - len(train):
        notes.append(f"{dropped} rows of {named} are also test items and are not trained on")
    if len(train) < train_items:
        kind = f"training items ({how})" + (" that are not test items" if dropped else "")
        raise _too_few(named, len(train), kind, train_items)
    train, rest = train[:train_items], train[train_items:]
    spare = {same(row): row for row in reversed(rest)}
    for row in train:
        spare.pop(same(row), None)
    used = ("train", "test") if test_files else ("train and test", "")
    provenance = {
        "split": how,
        "files": [_provenance(file, used[0]) for file in files]
        + [_provenance(file, used[1]) for file in test_files],
    }
    spared = list(reversed(spare.values()))
    return Split(train, test, tuple(dict.fromkeys(notes)), provenance, spared)


def _is_published(path: pathlib.Path, published: Any) -> bool:
    if callable(published):
        return bool(published(path))
    published = (published,) if isinstance(published, str) else published
    return "".join(words(path)) in {re.sub("[^a-z0-9]", "", name.lower()) for name in published}


def _selected(path: pathlib.Path, why: str, allowed: bool) -> str:
    """The note on selecting on a test set; an error where it is not allowed."""
    if not allowed:
        raise DataError(
            f"{path} is a published test set {why}, and experts would be selected on its items; "
            "give a training file, or say --allow-test-selection, and the report will say it"
        )
    return f"experts were selected on items of {path.name}, a published test set {why}"


def _identity(columns: Sequence[Column]) -> Callable[[Row], str]:
    """Returns a function row → text, equal for rows that are one item."""

    def same(row: Row) -> str:
        values = [_value(row, column) for column in columns] if columns else row
        return json.dumps(values, sort_keys=True)

    return same


def _value(row: Row, column: Column) -> Any:
    """What a row has in a needed column, under whichever of its names."""
    return next((row[name] for name in alternatives(column) if row.get(name) is not None), None)


def _without_test_range(
    pool: list[Row], named: str, ranges: Range, allowed: bool
) -> tuple[list[Row], list[str]]:
    """The rows of a training file, less those that are published as test items."""
    kept = [row for row in pool if ranges(row) != "test"]
    count = len(pool) - len(kept)
    if not count:
        return pool, []
    if allowed:
        return pool, [f"{count} rows of {named}, a training file, are published test items"]
    return kept, [f"{count} rows of {named} are published test items and are not trained on"]


def _shuffled(
    pool: list[Row],
    named: str,
    same: Callable[[Row], str],
    seed: int,
    train_items: int,
    test_items: int | None,
) -> tuple[list[Row], list[Row], list[str]]:
    """The different rows of one file in a random order: all but test items; these; notes."""
    different: dict[str, Row] = {}
    for row in pool:
        different.setdefault(same(row), row)
    items = list(different.values())
    asked = train_items + (test_items or 1)
    if asked > len(items):
        raise DataError(
            f"{named} has {len(items)} different items, and {train_items} training + "
            f"{test_items or 1} test items = {asked} were asked for; they never overlap, so ask "
            "for fewer (--train-items, --test-items), or give a test file (--test-data)"
        )
    order = np.random.default_rng(seed % 2**64).permutation(len(items))
    front = [items[index] for index in order]
    notes = [f"{named} was split at random without overlap (seed {seed}): no test file beside it"]
    if len(items) < len(pool):
        notes.append(f"{len(pool) - len(items)} rows of {named} repeat an item and were left out")
    last = train_items if test_items is None else len(items) - test_items
    return front[:last], front[: last - 1 : -1], notes


def _too_few(named: str, found: int, kind: str, asked: int) -> DataError:
    return DataError(f"{named} has {found} {kind}, and {asked} were asked for; ask for fewer")


def _rows(files: Sequence[File]) -> list[Row]:
    return [row for file in files for row in file.rows]


def _named(paths: Sequence[pathlib.Path]) -> str:
    """What messages call the files: the only one's name, or the first one's and how many more."""
    return paths[0].name + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _provenance(file: File, use: str) -> dict[str, Any]:
    return {"name": file.path.name, "use": use, "rows": len(file.rows), "sha256": file.sha256}
