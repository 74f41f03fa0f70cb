"""JSON files: what goes in comes out as plain values, whole or not at all."""

import json
import math

import numpy as np
import pytest

from thicket_jax.errors import RunError
from thicket_jax.runs import files

VALUES = {
    "scalars": (
        {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.str_("x")},
        {"a": 0.5, "b": 3, "c": True, "d": "x"},
    ),
    "arrays": (
        {"rows": np.array([[1, 2], [3, 4]], np.uint8), "names": np.array(["a", None], object)},
        {"rows": [[1, 2], [3, 4]], "names": ["a", None]},
    ),
    "not finite": (
        [math.nan, np.float32(np.inf), np.array([-np.inf, 1.0]), np.float64(np.nan)],
        [None, None, [None, 1.0], None],
    ),
    "minus zero": ([-0.0, np.float32(-0.0)], [0.0, 0.0]),
    "no dimension": (np.array(2.5), 2.5),
    "tuples and keys": ({1: (1, (2,)), "x": ()}, {"1": [1, [2]], "x": []}),
    "text": ("σ ✓ \ud800", "σ ✓ \ud800"),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES.keys())
def test_numpy_is_written_as_plain_values(value, expected, tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, value)
    found = files.read_json(path)
    assert found == expected == files.plain_json(value)
    assert json.dumps(found) == json.dumps(expected)  # also True is not 1, and −0.0 not 0.0
    assert path.read_text().endswith("\n") and "NaN" not in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, np.array([1j]), {"deep": [b"bytes"]}])
def test_what_json_cannot_hold_leaves_the_old_file(value, tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": value})
    assert files.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_old_until_it_is_new(tmp_path, monkeypatch):
    """Killed before the rename, the file has its old content; the next write is not in its way."""
    path = tmp_path / "x.json"
    files.write_json(path, {"old": 1})

    def killed(*_):
        assert json.loads((tmp_path / "x.json.tmp").read_text()) == {"new": 2}
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    files.write_json(path, {"new": 3})
    assert files.read_json(path) == {"new": 3}


READ = {
    "absent": (None, (), r"x.json is missing; is .* a run directory\?"),
    "half": ('{"a": 1', (), r"x.json is damaged \(.*\); restore it from a copy or start a new run"),
    "not utf-8": (b"\xff\xfe", (), r"x.json is damaged \(.*\); restore it"),
    "a name": ('{"a": 1}', ("a", "b", "c"), r"x.json is damaged \(it has no b, c\); restore it"),
    "a list": ("[1]", ("a",), r"x.json is damaged \(it has no a\); restore it"),
}


@pytest.mark.parametrize(("text", "wanted", "says"), READ.values(), ids=READ.keys())
def test_what_cannot_be_read_is_one_line(text, wanted, says, tmp_path):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError, match=says) as caught:
        files.read_json(path, wanted)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_reader_says_what_mends_the_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RunError, match=r"\); delete it$"):
        files.read_json(tmp_path / "x.json", ("a",), "delete it")
    (tmp_path / "x.json").write_text('{"a": null}')
    assert files.read_json(tmp_path / "x.json", ("a",), "delete it") == {"a": None}


def test_differences_are_named():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": "x"}
    assert files.differences(old, old) == []
    assert files.differences(old, {"a": {"b": 2, "c": [1, 2]}}) == [
        "a.b was 1, is now 2",
        'd was "x", is now null',
    ]
    (long,) = files.differences({"a": "x" * 100}, {"a": "y"})
    assert len(long) < 80 and "…" in long
