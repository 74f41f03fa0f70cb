"""What several files of this folder share: the library that compares mathematics."""

import pytest

from thicket_jax.text.graders import mathematics


@pytest.fixture(scope="session")
def library():
    pytest.importorskip("math_verify")
    mathematics.prepare()
