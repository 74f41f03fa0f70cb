"""Bad checkpoint folders: one line that names the file."""

import json
import pathlib
import pickle
import struct
import sys

import ml_dtypes
import numpy as np
import pytest
from tensor_folders import INDEX, NORM, SINGLE, UP, make_folder, refusal, shapes_of, weights

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.checkpoints import load_tensors, save_checkpoint
from thicket_jax.text.tensor_files import stored_tensors

pytest.importorskip("safetensors")
from safetensors.numpy import save_file


def truncate(path, count):
    path.write_bytes(path.read_bytes()[:count])


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def shard(number):
    return f"model-{number:05d}-of-00002.safetensors"


# What a user may have on disk: (number of shards, what happened to it, what the error says).
BAD = {
    "no weights": (1, lambda d: (d / SINGLE).unlink(), ["no weights", SINGLE, INDEX]),
    "an adapter alone": (
        1,
        lambda d: (d / SINGLE).rename(d / "adapter_model.safetensors"),
        ["no weights", "adapter_model.safetensors", "merge_and_unload"],
    ),
    "an adapter beside the model": (
        1,
        lambda d: (d / "adapter_config.json").write_text("{}"),
        ["has an adapter, adapter_config.json, beside the model's", "merge_and_unload"],
    ),
    "an adapter's weights beside shards": (
        2,
        lambda d: save_file({"x": np.ones(1)}, d / "adapter_model.safetensors"),
        ["has an adapter, adapter_model.safetensors, beside", "move it away"],
    ),
    "one file and an index of others": (
        2,
        lambda d: save_file(weights(), d / SINGLE),
        ["both", SINGLE, INDEX, "keep the one"],
    ),
    "one file and a shard of others": (
        1,
        lambda d: save_file(weights(), d / shard(1)),
        ["both", SINGLE, shard(1)],
    ),
    "GGUF alone": (
        1,
        lambda d: (d / SINGLE).rename(d / "model-Q4_K_M.gguf"),
        ["no safetensors, only model-Q4_K_M.gguf, which is not read"],
    ),
    "another framework's": (1, lambda d: (d / SINGLE).rename(d / "tf_model.h5"), ["tf_model.h5"]),
    "truncated": (1, lambda d: truncate(d / SINGLE, -5), [SINGLE, "truncated"]),
    "truncated in the header": (1, lambda d: truncate(d / SINGLE, 40), [SINGLE, "truncated"]),
    "empty": (1, lambda d: truncate(d / SINGLE, 0), [SINGLE, "truncated"]),
    "a truncated shard": (2, lambda d: truncate(d / shard(2), -1), [shard(2), "truncated"]),
    "garbage": (1, lambda d: (d / SINGLE).write_bytes(b"\x07garbage" * 9), [SINGLE, "truncated"]),
    "no tensors": (1, lambda d: save_file({}, d / SINGLE), [SINGLE, "no tensors"]),
    "a header that is not JSON": (
        1,
        lambda d: (d / SINGLE).write_bytes(struct.pack("<Q", 8) + b"notjson!"),
        [SINGLE, "truncated or no safetensors"],
    ),
    "a Git LFS pointer": (
        1,
        lambda d: (d / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n"),
        [SINGLE, "git lfs pull"],
    ),
    "a missing shard": (2, lambda d: (d / shard(2)).unlink(), [shard(2), "missing"]),
    "an index that is not JSON": (2, lambda d: truncate(d / INDEX, 30), [INDEX, "JSON"]),
    "an index that is a list": (2, lambda d: (d / INDEX).write_text("[]"), [INDEX, "list"]),
    "an index without a map": (2, lambda d: (d / INDEX).write_text("{}"), [INDEX, "weight_map"]),
    "an index that leaves the folder": (
        2,
        lambda d: edit_index(d, lambda m: m.update({NORM: "../other.safetensors"})),
        [INDEX, NORM, "../other.safetensors"],
    ),
    "an index that names the wrong shard": (
        2,
        lambda d: edit_index(d, lambda m: m.update({NORM: shard(2)})),
        [shard(1), NORM, shard(2)],
    ),
    "a tensor that the index does not list": (
        2,
        lambda d: edit_index(d, lambda m: m.pop(NORM)),
        [shard(1), NORM, INDEX],
    ),
    "a tensor that no shard has": (
        2,
        lambda d: edit_index(d, lambda m: m.update({"model.x": shard(2)})),
        [shard(2), "model.x", INDEX],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_line_that_names_the_file(tmp_path, case):
    shards, spoil, said = BAD[case]
    tensors = weights()
    folder = make_folder(tmp_path / "base", tensors, shards)
    spoil(folder)
    placed = []
    for act in (
        lambda: load_tensors(folder, shapes_of(tensors), "float32", place=placed.append),
        lambda: save_checkpoint(folder, tmp_path / "new", tensors, notes={}),
    ):
        text = refusal(DataError, act)
        assert all(phrase in text for phrase in said), text
        assert str(folder) in text
    assert not placed and not (tmp_path / "new").exists()


def test_what_else_may_lie_beside_the_weights(tmp_path):
    tensors = weights()
    folder = make_folder(tmp_path / "base", tensors)
    index = {"weight_map": dict.fromkeys(tensors, SINGLE)}  # of one shard
    (folder / INDEX).write_text(json.dumps(index))
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model.gguf", "tf_model.h5"):
        (folder / name).write_bytes(b"other")
    assert set(stored_tensors(folder)) == set(tensors)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: {k: v for k, v in t.items() if k != UP}, [UP, "has no tensor"]),
        (lambda t: t | {"model.layers.0.x.weight": np.ones(2, np.float32)}, ["0.x.weight"]),
        (lambda t: t | {UP: t[UP].T.copy()}, [UP, "[8, 24]", "[24, 8]"]),
        (lambda t: t | {UP: t[UP].astype(np.int8)}, [UP, "I8", "quantised"]),
        (lambda t: t | {UP: t[UP].astype(ml_dtypes.float8_e4m3fn)}, [UP, "F8_E4M3", "quantised"]),
        (lambda t: t | {UP: t[UP].astype(np.float64)}, [UP, "F64"]),
        (
            lambda t: t | {UP: t[UP].astype(np.int8), UP + "_scale": np.ones(24, np.float32)},
            [UP, "quantised"],
        ),
    ],
    ids=["missing", "unexpected", "shape", "int8", "fp8", "float64", "int8 and scale"],
)
def test_wrong_tensors_are_named_with_their_file(tmp_path, change, said, shards):
    tensors = weights()
    folder = make_folder(tmp_path / "base", change(tensors), shards)
    placed = []
    text = refusal(
        DataError,
        lambda: load_tensors(folder, shapes_of(tensors), "float32", place=placed.append),
    )
    assert all(phrase in text for phrase in said), text
    assert str(folder) in text and "safetensors" in text and not placed


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused_and_not_opened(tmp_path, name):
    folder = make_folder(tmp_path / "base", weights())
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "opened")))
    text = refusal(DataError, lambda: load_tensors(folder, {}, "float32"))
    assert name in text and "pickle checkpoints can run code; convert with safetensors" in text
    assert not (tmp_path / "opened").exists()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_a_folder_that_is_none(tmp_path):
    text = refusal(DataError, lambda: load_tensors("Qwen/Qwen2.5-0.5B", {}, "float32"))
    assert "Qwen/Qwen2.5-0.5B does not exist" in text and "folder" in text
    (tmp_path / "file").touch()
    assert "is a file" in refusal(DataError, lambda: stored_tensors(tmp_path / "file"))


@pytest.mark.parametrize("dtype", ["int8", "bf16", "float64", None])
def test_a_dtype_that_cannot_be_loaded(tmp_path, dtype):
    text = refusal(ArgumentError, lambda: load_tensors(tmp_path, {}, dtype))
    assert text.startswith("dtype=") and "float32, bfloat16, float16" in text


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "base", weights())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert 'pip install "thicket-jax[text]"' in refusal(DataError, lambda: stored_tensors(folder))
