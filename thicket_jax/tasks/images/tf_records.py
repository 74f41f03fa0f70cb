"""Random access to TFRecord files, tensorflow-datasets' default format, without TensorFlow.

A record is its length (8 bytes, little-endian), 4 bytes of checksum, the data, 4 bytes of
checksum. Records are found by walking over the lengths; checksums are not verified.
"""

import contextlib
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any


class TfRecords:
    """The examples of several TFRecord files, in order.

    Memory: one (path, place, length) an example; examples are read when asked for.
    """

    def __init__(self, paths: Sequence[Any], features: Any) -> None:
        """Walks over the files' records.

        Args:
          paths: the files.
          features: the features of tensorflow-datasets that decode an example.

        Raises:
          ValueError: a file ends within a record.
        """
        self._features = features
        self._records: list[tuple[str, int, int]] = []
        for path in map(str, paths):
            size = pathlib.Path(path).stat().st_size
            with open(path, "rb") as file:
                start = 0
                while start < size:
                    (length,) = struct.unpack("<Q", file.read(12)[:8])
                    self._records.append((path, start + 12, length))
                    start += length + 16
                    if start > size:
                        raise ValueError(f"{path} ends within a record")
                    file.seek(start)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._records)

    def __getitems__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Returns the decoded examples at `indices`."""
        with contextlib.ExitStack() as stack:
            files: dict[str, Any] = {}
            items = []
            for index in indices:
                path, start, length = self._records[index]
                if path not in files:
                    files[path] = stack.enter_context(open(path, "rb"))
                files[path].seek(start)
                items.append(self._features.deserialize_example_np(files[path].read(length)))
            return items
