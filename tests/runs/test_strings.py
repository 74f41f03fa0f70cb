"""Text as numeric arrays: what goes in comes out, and what is not ours is refused."""

import numpy as np
import pytest

from thicket_jax.runs import checkpoints, strings

CASES = {
    "repeated": np.array([["72", None, "72"], ["ν = ½", "72", ""]], object),
    "nothing": np.array([[None, None]], object),
    "empty text": np.array(["", None, ""], object),
    "scripts": np.array(["日本語", "naïve\n\\frac{1}{2}\0", "🌲" * 50, "x" * 10_000], object),
    "half a surrogate pair": np.array(["\ud83c", "a"], object),
    "no items": np.empty((3, 0), object),
}


@pytest.mark.parametrize("given", CASES.values(), ids=CASES.keys())
def test_text_comes_back(given):
    packed = strings.pack(given)
    found = strings.unpack(packed)
    assert found.shape == given.shape and found.dtype == object
    assert found.tolist() == given.tolist()
    assert set(packed) == set(strings.PARTS)
    assert [packed[part].dtype for part in strings.PARTS] == [np.int32, np.uint8, np.int64]


def test_each_text_is_stored_once():
    many = np.full((1000, 20), "the same answer", object)
    packed = strings.pack(many)
    assert packed["bytes"].size == 15 and packed["ends"].tolist() == [0, 15]
    assert packed["codes"].shape == (1000, 20) and not packed["codes"].any()


@pytest.mark.parametrize("name", ["repeated", "nothing", "empty text"])
def test_a_checkpoint_can_hold_it(name, tmp_path):
    """Orbax refuses arrays of no elements, so there must be none."""
    packed = strings.pack(CASES[name])
    checkpoints.save(tmp_path / "text", packed)
    assert strings.unpack(checkpoints.load(tmp_path / "text")).tolist() == CASES[name].tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ends": np.array([0, 5, 3])}, "not in order"),
        ({"ends": np.array([], np.int64)}, "not in order"),
        ({"ends": np.array([0, 2, 4, 400])}, "not in order"),
        ({"codes": np.array([7])}, r"a code is not -1 to 2"),
        ({"codes": np.array([-2])}, r"a code is not -1 to 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, says):
    packed = strings.pack(np.array(["72", "7", "12"], object))
    with pytest.raises(ValueError, match=says):
        strings.unpack(packed | change)
