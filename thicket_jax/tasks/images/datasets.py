"""Image classification sets of tensorflow-datasets as numpy arrays, without TensorFlow.

A set is looked for in our own folder, then where tensorflow-datasets keeps its own; if it is in
neither it is prepared in ours. tensorflow-datasets prepares beside the place and renames, so what
is found is whole; all the same it is checked before it is used.
"""

import dataclasses
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import tensorflow_datasets as tfds

from thicket_jax.errors import DataError
from thicket_jax.tasks.images import digits_dataset
from thicket_jax.tasks.images.tf_records import TfRecords
from thicket_jax.tasks.quiet import quietly

_CONNECT_SECONDS = 5.0
_SMALLEST_SIDE = 4


class _Source(Protocol):
    """A split with random access."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Mapping[str, Any]]: ...


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One split of an image classification set; images are read when asked for.

    Attributes:
      name: as given, such as `mnist`.
      version: of the prepared data.
      split: the split that is read: `train`, or the first by name where there is none.
      shape: (height, width, channels) of every image.
      classes: number of classes, C.
      peak: the pixel value that stands for full intensity.
      place: the folder it was read from.
    """

    name: str
    version: str
    split: str
    shape: tuple[int, int, int]
    classes: int
    peak: int
    place: str
    _keys: tuple[str, str]
    _source: _Source

    def __len__(self) -> int:
        """Returns the number of items."""
        return len(self._source)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8 [n, H, W, channels] and labels int32 [n] of the items at `indices`.

        Raises:
          DataError: an item cannot be decoded, or has no label.
        """
        image, label = self._keys
        try:
            with quietly():
                items = self._source.__getitems__([int(index) for index in indices])
            images = np.stack([np.asarray(item[image], np.uint8) for item in items])
            labels = np.array([item[label] for item in items], np.int32)
        except Exception as error:  # whatever a reader or decoder makes of damaged bytes
            raise _damaged(self.name, self.place, error) from error
        if images.shape[1:] != self.shape:
            found = f"images of shape {images.shape[1:]} instead of {self.shape}"
            raise _damaged(self.name, self.place, found)
        if labels.min() < 0 or labels.max() >= self.classes:
            raise DataError(
                f"dataset={self.name!r} has items without a label in its split {self.split!r}, "
                "so nothing can be scored on it; choose another set"
            )
        return images, labels


def open_images(name: str, folder: pathlib.Path) -> ImageSet:
    """Opens an image classification set, preparing it first if it is not there.

    Args:
      name: `digits` (scikit-learn's, prepared without a download), or any name that
        tensorflow-datasets knows or finds prepared: `mnist`, `cifar10`, `NAME/CONFIG:VERSION`.
      folder: where sets are prepared (array_record) and first looked for.

    Raises:
      DataError: the set is unknown, is not image classification with images of one size, is
        damaged, or is not there and cannot be fetched.
    """
    with quietly():
        builder = _find(name, folder)
        keys = _features(name, builder)
        if not builder.is_prepared():
            _refuse_half(name, builder)
            builder = _prepare(name, builder, folder)
        return _opened(name, builder, keys)


def split_items(key: jax.Array, total: int, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Deals `total` items out to splits that cannot overlap: slices of one permutation.

    Args:
      key: typed key; consumed.
      total: number of items there are.
      counts: number of items by split name. Splits of larger counts begin with the same items
        only if every split before them has the same count.

    Returns:
      Item indices int [count] by split name.

    Raises:
      DataError: more items are asked for than there are.
    """
    asked = sum(counts.values())
    if asked > total:
        parts = " + ".join(f"{count} {name}" for name, count in counts.items())
        raise DataError(
            f"the data set has {total} items, and {parts} = {asked} were asked for; splits are "
            "disjoint, so ask for fewer"
        )
    order = np.asarray(jax.random.permutation(key, total))
    ends = np.cumsum(list(counts.values()))
    return dict(zip(counts, np.split(order, ends)[: len(counts)], strict=True))


def _find(name: str, folder: pathlib.Path) -> Any:
    """Returns the builder of a prepared set, or else one that would prepare it in `folder`."""
    if name == "digits":
        return digits_dataset.Digits(data_dir=folder, file_format="array_record")
    unknown: Exception | None = None
    builders = []
    for place in ({"data_dir": folder}, {}):
        try:
            builder = tfds.builder(name, **place)
        except tfds.core.DatasetNotFoundError as error:
            unknown = error
            continue
        except ImportError as error:
            raise _needs_module(name, folder, error) from error
        except Exception as error:  # a bad name or version: each has an error of its own
            raise DataError(f"dataset={name!r} cannot be opened: {_first_line(error)}") from error
        if builder.is_prepared():
            return builder
        builders.append(builder)
    if not builders:
        raise DataError(
            f"dataset={name!r} is neither known to tensorflow-datasets {tfds.__version__} nor "
            f"prepared in {folder}; check the spelling, or use digits, which needs no download"
        ) from unknown
    return builders[0]


def _features(name: str, builder: Any) -> tuple[str, str]:
    """Returns the names of the image and label features; anything but those is an error."""
    features = builder.info.features
    keys = builder.info.supervised_keys
    if not (isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(k, str) for k in keys)):
        keys = ("image", "label")
    found = dict(features.items()) if hasattr(features, "items") else {}
    image, label = (found.get(key) for key in keys)
    shape = tuple(getattr(image, "shape", None) or ())
    if len(shape) != 3 or not isinstance(label, tfds.features.ClassLabel):
        names = ", ".join(found) or "none"
        raise DataError(
            f"dataset={name!r} is not an image classification set: it needs an image and a class "
            f"label, and its features are: {names}"
        )
    dtype = np.dtype(getattr(image, "np_dtype", np.uint8))
    if None in shape or shape[2] not in (1, 3) or dtype != np.uint8:
        raise DataError(
            f"dataset={name!r} has images {dtype.name}{list(shape)}; they must "
            "be uint8, all of one size, with 1 or 3 channels"
        )
    if min(shape[:2]) < _SMALLEST_SIDE:
        raise DataError(
            f"dataset={name!r} has images {list(shape)}; the smallest side is {_SMALLEST_SIDE}"
        )
    return keys


def _refuse_half(name: str, builder: Any) -> None:
    """A folder in the set's place that is not a prepared set would be taken for one."""
    place = pathlib.Path(builder.data_path)
    if place.exists():
        raise _damaged(name, place, "it has no readable dataset_info.json")


def _prepare(name: str, builder: Any, folder: pathlib.Path) -> Any:
    """Prepares a set in `folder`; returns a builder that reads it."""
    try:
        if name != "digits":
            _check_reachable(name, builder, folder)
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except DataError:
        raise
    except ImportError as error:
        raise _needs_module(name, folder, error) from error
    except Exception as error:  # a full disk, a refused download, a set that wants manual steps
        again = _find(name, folder)
        if again.is_prepared():  # another process prepared it meanwhile and was first to rename
            return again
        raise DataError(
            f"dataset={name!r} cannot be prepared in {folder}: {_first_line(error)}"
        ) from error
    return builder


def _check_reachable(name: str, builder: Any, folder: pathlib.Path) -> None:
    """Asks each host once: the downloader itself would go on trying for minutes."""
    hosts: dict[str, str] = {}
    for url in builder.url_infos or ():
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https"):
            hosts.setdefault(parts.netloc, url)
    for host, url in hosts.items():
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_CONNECT_SECONDS).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # an answer of any kind: the host is there
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise DataError(
                f"dataset={name!r} is not prepared in {folder} or in tensorflow-datasets' own "
                f"folder, and {host} cannot be reached to fetch it ({reason}); run once with a "
                "network, or copy a prepared set there"
            ) from error


def _opened(name: str, builder: Any, keys: tuple[str, str]) -> ImageSet:
    """Opens the split that is read, and checks that all of it is there."""
    info, place = builder.info, str(builder.data_path)
    try:
        split = "train" if "train" in info.splits else min(info.splits)
        expected = info.splits[split].num_examples
        if info.file_format == tfds.core.FileFormat.TFRECORD:
            source: Any = TfRecords(info.splits[split].filepaths, info.features)
        else:
            source = builder.as_data_source(split=split)
        found = len(source)
    except Exception as error:  # whatever a reader makes of missing or damaged files
        raise _damaged(name, place, error) from error
    if found != expected:
        raise _damaged(name, place, f"{found} items instead of {expected}")
    return ImageSet(
        name=name,
        version=str(info.version),
        split=split,
        shape=tuple(info.features[keys[0]].shape),
        classes=info.features[keys[1]].num_classes,
        peak=digits_dataset.PEAK if builder.name == "digits" else 255,
        place=place,
        _keys=keys,
        _source=source,
    )


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, without the arguments tensorflow-datasets puts first."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error), flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _needs_module(name: str, folder: pathlib.Path, error: ImportError) -> DataError:
    named = re.search(r"No module named '([^']+)'", str(error))
    module = error.name or (named[1] if named else _first_line(error))
    return DataError(
        f"dataset={name!r} is not prepared in {folder}, and preparing it needs the Python module "
        f"{module}; install it, or copy a set that was prepared elsewhere"
    )


def _damaged(name: str, place: Any, reason: Any) -> DataError:
    if isinstance(reason, BaseException):
        reason = _first_line(reason)
    return DataError(
        f"the prepared data set {name!r} in {place} is damaged ({reason}); delete that folder and "
        "run again"
    )
