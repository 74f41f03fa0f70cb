"""The conditions under which an image is seen: clean, rotated, noisy, inverted, shifted.

Each is a pure function of a key and one image, float32 [H, W, channels] from 0 to 1, made on the
device. Outside of an image there is 0.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

MAX_ANGLE = 60.0  # degrees
NOISE = 0.4  # standard deviation, of the full intensity
SHIFT = 4  # the largest shift is a side's SHIFT-th part

Condition = Callable[[jax.Array, jax.Array], jax.Array]


def clean(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the image as it is."""
    del key
    return image


def rotated(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turns the image about its centre by an angle uniform in ±60°, bilinearly sampled."""
    angle = jax.random.uniform(key, (), minval=-1, maxval=1) * jnp.deg2rad(MAX_ANGLE)
    return rotate(image, angle)


def noisy(key: jax.Array, image: jax.Array) -> jax.Array:
    """Adds normal noise of standard deviation 0.4 to every value and clips to 0 … 1."""
    return jnp.clip(image + NOISE * jax.random.normal(key, image.shape), 0, 1)


def inverted(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns 1 − image."""
    del key
    return 1 - image


def shifted(key: jax.Array, image: jax.Array) -> jax.Array:
    """Moves the image by whole pixels, uniform in ± a quarter of each side."""
    limits = jnp.array([max(1, side // SHIFT) for side in image.shape[:2]])
    return shift(image, jax.random.randint(key, (2,), -limits, limits + 1))


CONDITIONS: dict[str, Condition] = {
    "clean": clean,
    "rotated": rotated,
    "noisy": noisy,
    "inverted": inverted,
    "shifted": shifted,
}


def rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Turns an image [H, W, channels] about its centre, anticlockwise as displayed.

    Args:
      image: rows run downwards.
      angle: radians, [].
    """
    H, W = image.shape[:2]
    rows, columns = jnp.meshgrid(
        jnp.arange(H, dtype=jnp.float32) - (H - 1) / 2,
        jnp.arange(W, dtype=jnp.float32) - (W - 1) / 2,
        indexing="ij",
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Where each pixel comes from: its place turned back by the angle.
    source = [cos * rows + sin * columns + (H - 1) / 2, cos * columns - sin * rows + (W - 1) / 2]
    sample = functools.partial(map_coordinates, coordinates=source, order=1, mode="constant")
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def shift(image: jax.Array, offset: jax.Array) -> jax.Array:
    """Moves an image [H, W, channels] by `offset` int [2]: rows down, columns to the right."""
    H, W = image.shape[:2]
    rows, columns = jnp.arange(H) - offset[0], jnp.arange(W) - offset[1]
    inside = ((rows >= 0) & (rows < H))[:, None] & ((columns >= 0) & (columns < W))[None, :]
    moved = image[jnp.clip(rows, 0, H - 1)][:, jnp.clip(columns, 0, W - 1)]
    return jnp.where(inside[..., None], moved, 0)


@functools.partial(jax.jit, static_argnums=0)
def apply_condition(name: str, key: jax.Array, ids: jax.Array, images: jax.Array) -> jax.Array:
    """Puts images under the condition `name`, each in its own fixed way.

    Args:
      name: of `CONDITIONS`.
      key: typed key; an item's own is fold_in(key, its id), so that an item looks the same in any
        batch and to every expert.
      ids: int [B], the item's ids.
      images: float32 [B, H, W, channels].

    Returns:
      float32 [B, H, W, channels].
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
    return jax.vmap(CONDITIONS[name])(keys, images)


def mixture(key: jax.Array, images: jax.Array) -> jax.Array:
    """Puts each image under a condition drawn with equal probability. For use inside jit.

    Args:
      key: typed key; consumed.
      images: float32 [B, H, W, channels].
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        which, how = jax.random.split(key)
        made = jnp.stack([condition(how, image) for condition in CONDITIONS.values()])
        return made[jax.random.randint(which, (), 0, len(CONDITIONS))]

    return jax.vmap(one)(jax.random.split(key, len(images)), images)
