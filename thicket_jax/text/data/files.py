"""Which files of a data set are the training part and which are the test part, by their names."""

import pathlib
import re
from collections.abc import Sequence

from thicket_jax.errors import DataError
from thicket_jax.text.data.rows import ending

Path = str | pathlib.Path

_PARTS = ("train", "test")


def find(data: Path, test_data: Path | None) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns the files to train on, and those to test on (none: one set is to be split).

    Args:
      data: a file; or a folder with files of which `train` or `test` is a word of the name, in
        itself, in its folders `train` and `test`, or all in one other folder; or with one file.
      test_data: a test file, or a folder with one, in place of the one in `data`.

    Raises:
      DataError: the folder leaves open which files are meant, or lacks shards of one.
    """
    place = pathlib.Path(data).expanduser()
    parts = _parts(place) if place.is_dir() else {"": [place]}
    train = parts.get("train") or parts.get("") or parts.get("test") or []
    test = parts.get("test", []) if train != parts.get("test") else []
    if test_data is not None:
        place = pathlib.Path(test_data).expanduser()
        parts = _parts(place) if place.is_dir() else {"": [place]}
        test = parts.get("test") or parts.get("") or []
        if not test:
            raise DataError(f"{place} has no test file in it; name the file itself (--test-data)")
    if {path.resolve() for path in train} & {path.resolve() for path in test}:
        raise DataError(
            f"{test[0]} is both the training and the test file; leave out --test-data, and it is "
            "split without overlap"
        )
    return train, test


def names_test(path: pathlib.Path) -> bool:
    """Returns whether a file's name says that it is a test set.

    It does if `test` is a word of it and `train` is not; a file with only a number for a name goes
    by its folder's.

    >>> [names_test(pathlib.Path(p)) for p in ("test-0-of-1.csv", "gsm8k_test.json", "latest.csv")]
    [True, True, False]
    """
    found = words(path)
    if all(word.isdigit() for word in found):
        return path.parent.name.lower() == "test"
    return "test" in found and "train" not in found


def words(path: pathlib.Path) -> list[str]:
    """Returns the words of a file's name without its ending, in lower case."""
    stem = path.name.lower().removesuffix(ending(path))
    return re.findall("[a-z0-9]+", stem)


def _parts(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files of a folder by part: `train`, `test`; or under "" the only file."""
    homes = {folder: _by_name(folder)}
    if not homes[folder]:
        inside = sorted(each for each in folder.iterdir() if each.is_dir())
        homes = {each: parts for each in inside if (parts := _by_name(each))}
    if len(homes) > 1:
        names = ", ".join(home.name for home in homes)
        raise DataError(f"{folder} has several data sets in it ({names}); name one of them")
    for home, parts in homes.items():
        return {part: _one_set(home, part, paths) for part, paths in parts.items()}
    files = sorted(path for path in folder.iterdir() if path.is_file() and ending(path))
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:6]) or "none"
        raise DataError(
            f"{folder} has no data file with train or test in its name (data files: {names}); "
            "name the file itself (--data, --test-data)"
        )
    return {"": files}


def _by_name(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The data files of a folder, and of its own folders `train` and `test`, by part."""
    found: dict[str, list[pathlib.Path]] = {}
    for part in _PARTS:
        other = _PARTS[part == "train"]
        paths = [p for p in folder.iterdir() if {part, other} & set(words(p)) == {part}]
        if (folder / part).is_dir():
            paths += (folder / part).iterdir()
        if paths := [path for path in paths if path.is_file() and ending(path)]:
            found[part] = paths
    return found


def _one_set(folder: pathlib.Path, part: str, paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The file called just like the part, or else all shards of one file, in order."""
    exact = [path for path in paths if words(path) == [part]]
    chosen = sorted(exact or paths, key=_numbers)
    if len(set(map(_shape, chosen))) > 1:
        names = ", ".join(sorted(path.name for path in chosen)[:6])
        raise DataError(f"{folder} has several {part} files ({names}); name one of them")
    total = re.search("-of-([0-9]+)", chosen[0].name)
    if total and int(total[1]) != len(chosen):
        raise DataError(
            f"{folder} has {len(chosen)} of the {int(total[1])} shards of its {part} file; fetch "
            "the others"
        )
    return chosen


def _shape(path: pathlib.Path) -> str:
    """A file's name without what tells shards apart: their numbers and the hash behind them."""
    return re.sub("[0-9]+", "0", re.sub("(-of-[0-9]+)-[0-9a-f]+", r"\1", path.name.lower()))


def _numbers(path: pathlib.Path) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", path.name)]
