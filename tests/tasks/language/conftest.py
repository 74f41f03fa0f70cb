"""What every file of this folder shares: small models, and graders without processes."""

import pytest
from language_models import make_checkpoint
from language_tasks import InProcess

from thicket_jax.tasks.language import shared
from thicket_jax.text.graders import code
from thicket_jax.text.prompts import open_tokenizer


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(shared, "Graders", InProcess)
    yield
    code._sandbox.cache_clear()  # which ends the programs' process


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Checkpoints that say digits: plain, and with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("plain", "chat"):
        says = "0123456789 #\n"
        make_checkpoint(folder / name, chat=name == "chat", says=says, max_position_embeddings=8192)
    return folder


@pytest.fixture(scope="session")
def tokenizer(models):
    return open_tokenizer(models / "plain")
