"""The cache of base parameters: the same bits again, or a clear error."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from thicket_jax.errors import DataError
from thicket_jax.tasks.base_model import cached

FINGERPRINT = {"recipe": 1, "seed": 3, "prng": "threefry2x32"}


def make():
    key = jax.random.key(5)
    return {
        "params": {
            "layer_0": {"kernel": jax.random.normal(key, (3, 5)), "bias": jnp.zeros(5)},
            "half": jax.random.normal(key, (7,), jnp.bfloat16),
        },
        "scalar": jnp.float32(1.5),
        "one": jnp.full((1,), 2, jnp.int32),
    }


def must_not_be_called():
    raise AssertionError("the model was made again")


def assert_same_bits(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert isinstance(b, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def only_folder(cache):
    (folder,) = cache.iterdir()
    return folder


def test_found_again_with_the_same_bits(tmp_path):
    made = cached(tmp_path, "model", FINGERPRINT, make)
    assert_same_bits(make(), made)
    assert_same_bits(made, cached(tmp_path, "model", FINGERPRINT, must_not_be_called))
    assert only_folder(tmp_path).name.startswith("model-")


def test_folder_is_made_and_may_be_a_string(tmp_path):
    cache = tmp_path / "deep" / "cache"
    cached(str(cache), "model", FINGERPRINT, make)
    cached(os.path.relpath(cache), "model", FINGERPRINT, must_not_be_called)


@pytest.mark.parametrize("change", [{"seed": 4}, {"prng": "threefry4x32"}, {"new": None}])
def test_another_fingerprint_is_another_model(tmp_path, change):
    cached(tmp_path, "model", FINGERPRINT, make)
    other = cached(tmp_path, "model", {**FINGERPRINT, **change}, lambda: {"x": jnp.ones(2)})
    assert set(other) == {"x"}
    assert_same_bits(make(), cached(tmp_path, "model", FINGERPRINT, must_not_be_called))


def test_settings_that_change_results_are_in_the_fingerprint(tmp_path):
    cached(tmp_path, "model", FINGERPRINT, make)
    with jax.default_matmul_precision("highest"):
        other = cached(tmp_path, "model", FINGERPRINT, lambda: {"x": jnp.ones(2)})
    assert set(other) == {"x"}


def test_the_order_of_a_fingerprint_does_not_matter(tmp_path):
    cached(tmp_path, "model", FINGERPRINT, make)
    turned = dict(reversed(FINGERPRINT.items()))
    cached(tmp_path, "model", turned, must_not_be_called)


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [damage_half, damage_bit, pathlib.Path.unlink])
def test_a_damaged_file_is_named_or_harmless(tmp_path, damage):
    cached(tmp_path / "good", "model", FINGERPRINT, make)
    files = [p.relative_to(tmp_path / "good") for p in (tmp_path / "good").rglob("*")]
    found = 0
    for name in files:
        path = tmp_path / "bad" / name
        if (
            not (tmp_path / "good" / name).is_file()
            or not (tmp_path / "good" / name).stat().st_size
        ):
            continue
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        damage(path)
        try:
            loaded = cached(tmp_path / "bad", "model", FINGERPRINT, must_not_be_called)
        except DataError as error:
            found += 1
            message = str(error)
            assert str(only_folder(tmp_path / "bad")) in message
            assert "delete that folder" in message
            assert "\n" not in message
        else:  # a file that the parameters do not depend on
            assert_same_bits(make(), loaded)
        shutil.rmtree(tmp_path / "bad")
    assert found >= 2


def test_an_empty_folder_is_damaged(tmp_path):
    cached(tmp_path, "model", FINGERPRINT, make)
    folder = only_folder(tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(DataError, match=r"damaged.*delete that folder"):
        cached(tmp_path, "model", FINGERPRINT, must_not_be_called)


def test_another_models_folder_in_its_place_is_refused(tmp_path):
    cached(tmp_path / "a", "model", FINGERPRINT, make)
    cached(tmp_path / "b", "model", {**FINGERPRINT, "seed": 4}, make)
    only_folder(tmp_path / "b").rename(tmp_path / "b" / only_folder(tmp_path / "a").name)
    with pytest.raises(DataError, match="made with other options"):
        cached(tmp_path / "b", "model", FINGERPRINT, must_not_be_called)


def test_a_cache_that_cannot_be_written_is_an_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot be written.*--cache"):
        cached(tmp_path / "file" / "cache", "model", FINGERPRINT, must_not_be_called)


def test_an_interrupted_save_leaves_nothing_behind(tmp_path, monkeypatch):
    save = ocp.Checkpointer.save

    def interrupted(self, path, tree):
        save(self, path, tree)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached(tmp_path, "model", FINGERPRINT, make)
    assert list(tmp_path.iterdir()) == []
    cached(tmp_path, "model", FINGERPRINT, make)


def test_two_runs_at_once_keep_one_model(tmp_path):
    def make_while_another_run_does():
        cached(tmp_path, "model", FINGERPRINT, make)
        return make()

    assert_same_bits(make(), cached(tmp_path, "model", FINGERPRINT, make_while_another_run_does))
    only_folder(tmp_path)
    cached(tmp_path, "model", FINGERPRINT, must_not_be_called)


PROCESS = """
import sys
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
import jax.numpy as jnp
from jax.experimental import multihost_utils
from thicket_jax.tasks.base_model import cached
index = jax.process_index()
first = cached(sys.argv[3] + "/" + str(index), "model", {}, lambda: {"x": jnp.full(3, 7.0 + index)})
multihost_utils.sync_global_devices("kept")
again = cached(sys.argv[3] + "/0", "model", {}, lambda: 1 / 0)
print(float(first["x"][0]), float(again["x"][0]))
"""


@pytest.mark.slow
def test_with_two_processes_one_writes_and_none_waits(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, port, str(index), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for index, (process, (out, err)) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, err
        assert out.split()[-2:] == [str(7.0 + index), "7.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
