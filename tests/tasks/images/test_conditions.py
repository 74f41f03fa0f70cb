"""Conditions on images: against slow versions, and of the strength they say."""

import math

import jax
import numpy as np
import pytest

from thicket_jax.tasks.images import conditions

KEY = jax.random.key(3)
rotate, shift = jax.jit(conditions.rotate), jax.jit(conditions.shift)


def random_pictures(*shape, low=0.0, high=1.0):
    return np.random.default_rng(3).uniform(low, high, shape).astype(np.float32)


def marked(shape, place, value):
    """Zeros, and one pixel."""
    image = np.zeros(shape, np.float32)
    image[place] = value
    return image


def slow_rotation(image, angle):
    """Bilinear sampling, pixel by pixel: the angle is anticlockwise, with x right and y up."""
    H, W = image.shape[:2]
    out = np.zeros(image.shape)
    for row in range(H):
        for column in range(W):
            x, y = column - (W - 1) / 2, (H - 1) / 2 - row
            from_x = x * math.cos(angle) + y * math.sin(angle)
            from_y = y * math.cos(angle) - x * math.sin(angle)
            r, c = (H - 1) / 2 - from_y, from_x + (W - 1) / 2
            for i in (math.floor(r), math.floor(r) + 1):
                for j in (math.floor(c), math.floor(c) + 1):
                    if 0 <= i < H and 0 <= j < W:
                        out[row, column] += image[i, j] * (1 - abs(r - i)) * (1 - abs(c - j))
    return out


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 9, 3)])
def test_rotation_is_the_slow_one(shape):
    image = random_pictures(*shape)
    for angle in (-1.0, 0.3, 0.8):
        found = rotate(image, np.float32(angle))
        np.testing.assert_allclose(found, slow_rotation(image, angle), atol=2e-5)


def test_a_quarter_turn_takes_top_right_to_top_left():
    quarter = np.asarray(rotate(marked((8, 8, 1), (0, 7), 3), np.float32(math.pi / 2)))
    assert quarter[0, 0, 0] == pytest.approx(3, abs=1e-4)


def test_a_shift_moves_pixels_and_leaves_zeros():
    image = np.arange(1, 31, dtype=np.float32).reshape(5, 6, 1)
    for down in (-2, 0, 1):
        for right in (-1, 0, 2):
            wanted = np.zeros((5, 6, 1))
            for row in range(5):
                for column in range(6):
                    if 0 <= row + down < 5 and 0 <= column + right < 6:
                        wanted[row + down, column + right] = image[row, column]
            found = shift(image, np.array([down, right], np.int32))
            np.testing.assert_array_equal(found, wanted)


def test_conditions_have_the_strength_they_say():
    ids = np.arange(600, dtype=np.int32)
    image = marked((9, 13, 1), (4, 6), 1)

    def seen(name, image):
        images = np.broadcast_to(image, (600, *image.shape))
        return np.asarray(conditions.apply_condition(name, KEY, ids, images), np.float64)

    np.testing.assert_array_equal(seen("clean", image), np.broadcast_to(image, (600, 9, 13, 1)))
    np.testing.assert_array_equal(
        seen("inverted", image), 1 - np.broadcast_to(image, (600, 9, 13, 1))
    )
    places = np.argwhere(seen("shifted", image)[..., 0] == 1)
    assert len(places) == 600
    assert {tuple(p) for p in places[:, 1:] - [4, 6]} == {
        (down, right) for down in range(-2, 3) for right in range(-3, 4)
    }
    grey = seen("noisy", np.full((9, 13, 1), 0.5, np.float32))
    assert grey.min() == 0 and grey.max() == 1
    inside = grey[(grey > 0) & (grey < 1)]
    # A normal of standard deviation .4 is within ±.5 with probability .7887.
    assert inside.size / grey.size == pytest.approx(0.7887, abs=4 * math.sqrt(0.17 / grey.size))
    # Two marks, above and right of the centre, tell the angle (x right, y up).
    marks = marked((31, 31, 1), (3, 15), 1)
    turned = seen("rotated", marks)[..., 0]
    rows, columns = np.mgrid[:31, :31]
    weight = turned.sum((1, 2))
    up, right = (
        ((15 - rows) * turned).sum((1, 2)) / weight,
        ((columns - 15) * turned).sum((1, 2)) / weight,
    )
    angles = np.rad2deg(np.arctan2(-right, up))
    assert -61 < angles.min() < -57 and 57 < angles.max() < 61
    assert abs(angles.mean()) < 4 * 60 / math.sqrt(3 * 600)


@pytest.mark.parametrize("name", list(conditions.CONDITIONS))
def test_an_item_looks_the_same_in_any_batch(name):
    ids = np.array([5, 900, 17, 2, 41], np.int32)
    pictures = random_pictures(5, 8, 8, 1)
    whole = conditions.apply_condition(name, KEY, ids, pictures)
    order = np.array([3, 0, 4, 4, 3])
    part = conditions.apply_condition(name, KEY, ids[order], pictures[order])
    np.testing.assert_array_equal(part, whole[order])
    same = np.broadcast_to(pictures[:1], pictures.shape)
    differ = np.asarray(conditions.apply_condition(name, KEY, ids, same))
    assert (differ[0] != differ[1]).any() == (name not in ("clean", "inverted"))


def test_the_mixture_has_every_condition_in_equal_parts():
    image = random_pictures(8, 8, 1, low=0.1, high=0.9)
    many = np.broadcast_to(image, (1000, 8, 8, 1))
    mixed = np.asarray(jax.jit(conditions.mixture)(KEY, many))
    clean = (mixed == image).all((1, 2, 3)).mean()
    inverted = (mixed == 1 - image).all((1, 2, 3)).mean()
    # A 25th of the shifts moves nothing.
    assert clean == pytest.approx(0.2 + 0.2 / 25, abs=4 * math.sqrt(0.16 / 1000))
    assert inverted == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 1000))
