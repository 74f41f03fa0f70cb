"""What several files of this folder share: a cache with the prepared digits."""

import pytest

from thicket_jax.tasks.images import datasets


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder shared by the tests that do not damage it; the digits are prepared in it."""
    folder = tmp_path_factory.mktemp("cache")
    datasets.open_images("digits", folder / "tfds")
    return folder
