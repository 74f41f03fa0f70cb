"""Hugging Face checkpoint folders: safetensors → device tensor by tensor, and back to a folder."""

import json
import math
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, DataError, check_choice, check_count
from thicket_jax.text.tensor_files import (
    INDEX,
    SINGLE,
    Stored,
    open_file,
    read_json,
    stored_tensors,
)

_NOTES = "thicket.json"
_BITS = {"F32": np.uint32, "BF16": np.uint16, "F16": np.uint16}
_EXPONENTS = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}
_CHUNK = 2**14  # numbers that are looked at together
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# What belongs to a checkpoint besides its config and weights; code is not copied.
_COPIED = (
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
    "LICEN[CS]E*",
    "NOTICE*",
)


def load_tensors(
    folder: str | os.PathLike[str],
    wanted: Mapping[str, tuple[int, ...]],
    dtype: Any,
    *,
    place: Callable[[np.ndarray], jax.Array] = jnp.asarray,
    tied: Sequence[str] = (),
) -> dict[str, jax.Array]:
    """Loads a checkpoint folder's tensors onto the device, one after another.

    All headers are checked before the first tensor is read. Files are memory maps, so that the
    host holds one tensor, and its converted copy where the dtype differs. Float tensors are
    converted to `dtype` with one rounding, to nearest even. A weight must be a finite number.

    Args:
      folder: with `model.safetensors`, or `model.safetensors.index.json` and its shards.
      wanted: shape of every tensor of the model, by name.
      dtype: float32, bfloat16 or float16, of the returned arrays.
      place: puts one host array of `dtype` on the device(s).
      tied: names of tensors that are the embedding table (`lm_head.weight` of a tied model). They
        are not returned, and may be absent from the folder.

    Returns:
      The arrays, in the order of `wanted`.

    Raises:
      DataError: no folder, no safetensors weights, a damaged file, or tensors that are not those of
        `wanted`, or not finite; the text names the file and the tensor.
    """
    narrow = _float_dtype(dtype)
    folder = pathlib.Path(folder)
    wanted = {name: tuple(shape) for name, shape in wanted.items() if name not in tied}
    stored = stored_tensors(folder)
    _check_tensors(folder, stored, wanted, tied)
    _check_tied(stored, tied)
    placed: dict[str, jax.Array] = {}
    for file in dict.fromkeys(stored[name].file for name in wanted):
        with open_file(file) as reader:
            for name in reader.offset_keys():
                if name in wanted:
                    host = reader.get_tensor(name)
                    _check_finite(host, stored[name])
                    host = _convert(host, narrow, stored[name])
                    # Transfers that queue up would hold their host copies.
                    placed[name] = jax.block_until_ready(place(host))
                    del host
    return {name: placed[name] for name in wanted}


def _float_dtype(dtype: Any) -> np.dtype:
    known = tuple(_DTYPES.values())
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = None
    check_choice("dtype", name if name in known else dtype, known)
    return jnp.dtype(dtype)


def _check_tensors(
    folder: pathlib.Path,
    stored: Mapping[str, Stored],
    wanted: Mapping[str, tuple[int, ...]],
    tied: Sequence[str],
) -> None:
    """Raises `DataError` unless the stored tensors are the wanted ones, and tied ones if any."""
    for tensor in stored.values():
        if tensor.dtype not in _DTYPES:
            raise DataError(
                f"{tensor.file}: tensor {tensor.name!r} is {tensor.dtype}, not "
                f"{', '.join(_DTYPES)}; quantised checkpoints are not supported, use the original"
            )
    for tensor in stored.values():
        if tensor.name not in wanted and tensor.name not in tied:
            raise DataError(
                f"{tensor.file}: tensor {tensor.name!r} is not one of the model that config.json "
                "describes; are config and weights of one checkpoint?"
            )
    missing = [name for name in wanted if name not in stored]
    if missing:
        where = folder / (SINGLE if (folder / SINGLE).exists() else INDEX)
        raise DataError(
            f"{where} has no tensor {missing[0]!r}"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
            + ", which the model of config.json has; are config and weights of one checkpoint?"
        )
    for name, shape in wanted.items():
        if stored[name].shape != shape:
            raise DataError(
                f"{stored[name].file}: tensor {name!r} has shape {list(stored[name].shape)}, but "
                f"config.json means {list(shape)}; are config and weights of one checkpoint?"
            )


def _check_tied(stored: Mapping[str, Stored], tied: Sequence[str]) -> None:
    """Raises `DataError` unless what is tied to the embedding equals it, where it is stored."""
    table = stored.get(_EMBEDDING)
    for tensor in (stored[name] for name in tied if name in stored):
        if table is None or not _equal(tensor, table):
            one, other = (
                f"{each.dtype} {list(each.shape)}" if each else "absent" for each in (tensor, table)
            )
            raise DataError(
                f"{tensor.file}: tensor {tensor.name!r} ({one}) differs from {_EMBEDDING!r} "
                f'({other}), to which config.json ties it; set "tie_word_embeddings" to false there'
            )


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two stored tensors differ in nothing but that one is the other one rounded."""
    if one.shape != other.shape:
        return False
    count = one.shape[0]
    step = max(1, 2**22 * count // max(1, math.prod(one.shape)))
    rounded = [True, True]  # the first to the second's dtype, the second to the first's
    with open_file(one.file) as first, open_file(other.file) as second:
        left, right = first.get_slice(one.name), second.get_slice(other.name)
        for part in (slice(i, min(i + step, count)) for i in range(0, count, step)):
            a, b = left[part], right[part]
            with np.errstate(over="ignore", invalid="ignore"):
                rounded[0] &= a.astype(b.dtype).tobytes() == b.tobytes()
                rounded[1] &= b.astype(a.dtype).tobytes() == a.tobytes()
            if not any(rounded):
                return False
    return True


def _check_finite(host: np.ndarray, tensor: Stored) -> None:
    """Raises `DataError` for NaN and infinity: numbers whose exponent has all its bits."""
    exponent = _EXPONENTS[tensor.dtype]
    bits = host.reshape(-1).view(_BITS[tensor.dtype])
    parts = (bits[i : i + _CHUNK] for i in range(0, bits.size, _CHUNK))
    count = sum(int(np.count_nonzero((part & exponent) == exponent)) for part in parts)
    if count:
        raise DataError(
            f"{tensor.file}: tensor {tensor.name!r} has {count:,} NaN or infinite numbers of "
            f"{bits.size:,}; download the checkpoint again, or use another"
        )


def _convert(host: np.ndarray, dtype: np.dtype, tensor: Stored) -> np.ndarray:
    """Rounds once to `dtype`; a number that would become infinite is an error."""
    if host.dtype == dtype:
        return host
    with np.errstate(over="ignore", invalid="ignore"):
        converted = host.astype(dtype)
    if jnp.finfo(dtype).max < jnp.finfo(host.dtype).max:
        lost = np.isinf(converted)
        if lost.any():
            raise DataError(
                f"{tensor.file}: tensor {tensor.name!r} has {host[lost][0]!s}, beyond the range of "
                f"{dtype.name}; load it as float32"
            )
    return converted


def save_checkpoint(
    base_folder: str | os.PathLike[str],
    to: str | os.PathLike[str],
    tensors: Mapping[str, Any] | Iterable[tuple[str, Any]],
    *,
    max_shard_bytes: int = 5 * 10**9,
    notes: Mapping[str, Any],
    tied: bool = False,
) -> pathlib.Path:
    """Writes tensors as a checkpoint folder that transformers opens: the base's, other weights.

    The folder has the base's config (with the tensors' dtype), generation config, tokenizer and
    licence, the weights in one file or in shards with an index, and `thicket.json` with the notes.
    It is written beside `to` and renamed, so it appears whole or not at all.

    Memory: the host holds one shard and the next tensor.

    Args:
      base_folder: checkpoint folder that the tensors are a variation of.
      to: the new folder; must not exist.
      tensors: (name, array) of every tensor of the base, all of one dtype: a mapping, or an
        iterator that makes them one by one. A tied `lm_head.weight` is left out.
      max_shard_bytes: most bytes of a file; a larger tensor has a file of its own.
      notes: JSON, where the weights come from.
      tied: whether the head is the embedding table, where the base's config does not say.

    Returns:
      The absolute path of the folder.

    Raises:
      ArgumentError: `to` exists or cannot be written, or the tensors are not those of the base.
      DataError: the base folder is incomplete or damaged.
    """
    base, to = pathlib.Path(base_folder), pathlib.Path(to)
    limit = check_count("max_shard_bytes", max_shard_bytes)
    if os.path.lexists(to):
        raise ArgumentError(f"to={to} exists; choose another folder")
    try:
        notes_text = json.dumps(notes, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"notes cannot be written as JSON: {error}") from None
    stored = stored_tensors(base)
    config = read_json(base / "config.json")
    pairs = iter(tensors.items() if isinstance(tensors, Mapping) else tensors)
    if config.get("tie_word_embeddings", tied):
        stored.pop(_HEAD, None)
        pairs = ((name, value) for name, value in pairs if name != _HEAD)
    unfinished = to.with_name(f".{to.name}.{uuid.uuid4().hex}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        dtype = _write_weights(unfinished, _checked(pairs, stored), limit)
        keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
        config |= dict.fromkeys(keys, dtype)
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (unfinished / _NOTES).write_text(notes_text)
        for file in unfinished.glob("*.safetensors"):  # written for their owner alone
            shutil.copymode(unfinished / "config.json", file)
        _copy(base, unfinished)
        _flush(unfinished)
        unfinished.rename(to)
    except OSError as error:
        raise ArgumentError(f"to={to} cannot be written: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return to.absolute()


def _checked(
    pairs: Iterator[tuple[str, Any]], stored: Mapping[str, Stored]
) -> Iterator[tuple[str, Any]]:
    """Passes the pairs on; `ArgumentError` unless they are the stored tensors, of one dtype."""
    missing, dtype = dict(stored), None
    for name, value in pairs:
        if name not in missing:
            found = "is given twice" if name in stored else "is not one of the base checkpoint"
            raise ArgumentError(f"tensors: {name!r} {found}")
        if tuple(value.shape) != missing.pop(name).shape:
            raise ArgumentError(
                f"tensors: {name!r} has shape {list(value.shape)}, in the base checkpoint "
                f"{list(stored[name].shape)}"
            )
        dtype = dtype or value.dtype.name
        if value.dtype.name != dtype or dtype not in _DTYPES.values():
            raise ArgumentError(
                f"tensors: {name!r} is {value.dtype.name}; all must be of one dtype out of: "
                f"{', '.join(_DTYPES.values())}"
            )
        yield name, value
    if missing:
        raise ArgumentError(
            f"tensors: {len(missing)} of the base checkpoint are missing, {next(iter(missing))!r}"
            " is the first"
        )


def _write_weights(folder: pathlib.Path, pairs: Iterator[tuple[str, Any]], limit: int) -> str:
    """Writes one file, or shards and their index; returns the tensors' dtype."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    shards: list[list[str]] = []
    total, dtype = 0, ""
    for shard in _shards(pairs, limit):
        # Shards carry their count in their name, which is not known yet.
        try:
            save_file(shard, folder / f"{len(shards)}.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(" ".join(str(error).split())) from error
        shards.append(list(shard))
        total += sum(value.nbytes for value in shard.values())
        dtype = next(iter(shard.values())).dtype.name
    if len(shards) == 1:
        (folder / "0.safetensors").rename(folder / SINGLE)
        return dtype
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"{i}.safetensors").rename(folder / name)
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return dtype


def _shards(pairs: Iterator[tuple[str, Any]], limit: int) -> Iterator[dict[str, np.ndarray]]:
    """Groups tensors into shards on the host; a shard is emptied when the next is asked for."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, value in pairs:
        if shard and size + value.nbytes > limit:
            yield shard
            shard.clear()
            size = 0
        if isinstance(value, jax.Array) and value.is_fully_replicated:
            # An array keeps the host copy that is made of it; this view's goes with the shard.
            value = value.addressable_data(0)
        shard[name] = np.asarray(value, order="C")
        size += value.nbytes
    yield shard


def _copy(base: pathlib.Path, folder: pathlib.Path) -> None:
    for pattern in _COPIED:
        for path in base.glob(pattern):
            copy = folder / path.relative_to(base)
            if path.is_file() and not copy.exists():
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)


def _flush(folder: pathlib.Path) -> None:
    """Waits until the disk has every file, so that a crash after the rename loses nothing."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
