"""What several files of this folder share: whether programs can be confined here."""

import pytest

from thicket_jax.text.sandbox import sandbox as sandbox_module


@pytest.fixture(scope="session")
def confined():
    """Without seccomp no program is run, so there is nothing to test."""
    if not sandbox_module.layers()["seccomp"]:
        pytest.skip("programs cannot be confined here")
