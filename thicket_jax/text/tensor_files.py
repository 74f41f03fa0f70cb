"""A Hugging Face checkpoint folder's weight files: which tensors are where, from headers alone."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from thicket_jax.errors import DataError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Constants that old releases of transformers stored beside the weights.
_CONSTANTS = re.compile(r"\brotary_emb\.inv_freq$")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_UNREAD = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.npz", "*.tflite")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")
_SHARDS = "model-*-of-*.safetensors"


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor is, from a file's header.

    Attributes:
      name: the tensor's.
      file: safetensors file that holds it.
      shape: the tensor's.
      dtype: safetensors code, such as "F32" or "BF16".
    """

    name: str
    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: str


def stored_tensors(folder: str | os.PathLike[str]) -> dict[str, Stored]:
    """Returns the tensors of a checkpoint folder by name, from the files' headers alone.

    Left out: the rotary frequencies that old checkpoints store, which are no parameters.

    Raises:
      DataError: no folder, no safetensors weights or two forms of them, an adapter beside them, or
        a file that is missing or damaged.
    """
    files, index = _weight_files(pathlib.Path(folder))
    found: dict[str, Stored] = {}
    for file in files:
        with open_file(file) as reader:
            for name in reader.offset_keys():
                if _CONSTANTS.search(name):
                    continue
                if index is not None and index.get(name) != file.name:
                    said = f"says is in {index[name]}" if name in index else "does not list"
                    raise DataError(
                        f"{file} has tensor {name!r}, which {INDEX} {said}; download the "
                        "checkpoint again"
                    )
                header = reader.get_slice(name)
                shape = tuple(header.get_shape())
                found[name] = Stored(name, file, shape, header.get_dtype())
    if not found:
        raise DataError(f"{files[0]} has no tensors; download the checkpoint again")
    for name, file_name in (index or {}).items():
        if name not in found and not _CONSTANTS.search(name):
            raise DataError(
                f"{files[0].parent / file_name} has no tensor {name!r}, which {INDEX} says is in "
                "it; download the checkpoint again"
            )
    return found


def _weight_files(folder: pathlib.Path) -> tuple[list[pathlib.Path], dict[str, str] | None]:
    """Returns the files with weights, and the index (tensor → file name) if there is one."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}; give the folder of a downloaded checkpoint")
    single, indexed = (folder / SINGLE).exists(), (folder / INDEX).exists()
    index = _read_index(folder / INDEX) if indexed else None
    shards = sorted(folder.glob(_SHARDS))
    if not (single or indexed):
        raise _no_weights(folder)
    _refuse_adapter(folder)
    if single and set((index or {}).values()) - {SINGLE}:
        raise DataError(
            f"{folder} has both {SINGLE} and {INDEX}, which names other files; keep the one that "
            "is the model's"
        )
    if single and index is None and shards:
        raise DataError(
            f"{folder} has both {SINGLE} and {shards[0].name}; keep those that are the model's"
        )
    if index is None:
        return [folder / SINGLE], None
    files = [folder / name for name in sorted(set(index.values()))]
    for file in files:
        if not file.exists():
            count = sum(name == file.name for name in index.values())
            raise DataError(
                f"{file} is missing, a shard of {count} tensors that {INDEX} names; download it"
            )
    return files, index


def _refuse_adapter(folder: pathlib.Path) -> None:
    """Raises `DataError` for weights that something else is to be added to."""
    for name in _ADAPTERS:
        if (folder / name).exists():
            raise DataError(
                f"{folder} has an adapter, {name}, beside the model's weights, which would not be "
                "applied; merge it into them (merge_and_unload of peft), or move it away"
            )


def _no_weights(folder: pathlib.Path) -> DataError:
    """What is said of a folder without safetensors, or with others than a model's."""

    def first(*patterns: str) -> str | None:
        found = sorted(path.name for each in patterns for path in folder.glob(each))
        return found[-1] if found else None

    adapter, other = first(*_ADAPTERS), first("*.safetensors")
    if adapter is not None:
        return DataError(
            f"{folder} has no weights, only an adapter, {adapter}; merge it into its base model "
            "(merge_and_unload of peft), and give the folder of that"
        )
    if other is None and (pickle := first(*_PICKLES)):
        return DataError(
            f"{folder} has no safetensors, only {pickle}, which is refused: pickle checkpoints can "
            "run code; convert with safetensors"
        )
    if other is None and (unread := first(*_UNREAD)):
        return DataError(
            f"{folder} has no safetensors, only {unread}, which is not read; download the model's "
            "safetensors"
        )
    return DataError(
        f"{folder} has no weights: neither {SINGLE} nor {INDEX}"
        + (f", only {other}" if other else "")
        + "; download the whole checkpoint"
    )


def _read_index(path: pathlib.Path) -> dict[str, str]:
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise DataError(f"{path} has no weight_map of tensors; download it again")
    for name, file in index.items():
        if not isinstance(file, str) or pathlib.PurePath(file).name != file:
            raise DataError(
                f"{path} places tensor {name!r} in {file!r}, which is not the name of a file in "
                "its folder; download it again"
            )
    return index


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file; anything else is a `DataError` that names it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; download the whole checkpoint") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is a JSON {type(value).__name__}, not an object")
    return value


@contextlib.contextmanager
def open_file(file: pathlib.Path) -> Iterator[Any]:
    """Opens a safetensors file as a memory map of numpy arrays; `DataError` if it is damaged."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise DataError(
            f'reading {file} needs safetensors; pip install "thicket-jax[text]"'
        ) from None
    try:
        reader = safe_open(file, framework="numpy")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    except SafetensorError as error:
        with open(file, "rb") as raw:
            pointer = raw.read(23) == b"version https://git-lfs"
        if pointer:
            raise DataError(f"{file} is a Git LFS pointer; get the file: git lfs pull") from None
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file} is truncated or no safetensors file ({reason}); download it again"
        ) from None
    with reader:
        yield reader
