"""Modules of experiments/, which are run from the top and not installed."""

import importlib

import jax
import pytest
from experiment_runs import ROOT


@pytest.fixture
def experiment(monkeypatch):
    """Imports a module of experiments/, which is run from the top and not installed."""
    jax.devices()  # those of the tests, before an experiment asks for its own
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.fixture
def briefly_trained(monkeypatch):
    """Trains bases of signals for a few steps: what is measured of them is not looked at."""
    from thicket_jax.tasks.signals import task

    monkeypatch.setattr(task, "ITERATIONS", 20)


@pytest.fixture
def fast_compiling():
    """Compiles without much optimisation, as `done` does."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)
