"""Modules of experiments/, which are run from the top and not installed."""

import importlib

import jax
import numpy as np
import pytest
from experiment_runs import ROOT
from matplotlib.figure import Figure


@pytest.fixture
def experiment(monkeypatch):
    """Imports a module of experiments/, which is run from the top and not installed."""
    jax.devices()  # those of the tests, before an experiment asks for its own
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.fixture(autouse=True)
def rendered_once(monkeypatch):
    """Neither what is drawn again is rendered, nor the reports of runs inside an experiment."""
    from thicket_jax.reports.figures import OWN

    render = Figure.savefig

    def savefig(figure, path, **how):
        if path.name in OWN:
            path.write_bytes(b"a picture")
        elif not path.exists():
            render(figure, path, **how)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def untrained(monkeypatch):
    """Leaves bases of signals as they begin: what is measured of them is not looked at."""
    from thicket_jax.tasks.signals import model, task

    def begin(key, family, iterations, *_):
        return model.initialise(key, "xavier"), np.ones(iterations, np.float32)

    monkeypatch.setattr(task, "pretrain", begin)


@pytest.fixture
def fast_compiling():
    """Compiles without much optimisation, as `done` does."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)
