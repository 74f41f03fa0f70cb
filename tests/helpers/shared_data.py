"""The authors' data, where they are there."""

import json

import pytest
from language_models import SHARED

DATA = SHARED / "data"


def real(name):
    """The path of a file or folder of it; the test is skipped without it."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return str(path)


def rows(name):
    """The rows of a JSONL file of it."""
    with open(real(name)) as file:
        return [json.loads(line) for line in file]
