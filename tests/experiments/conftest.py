"""Modules of experiments/, which are run from the top and not installed."""

import importlib

import pytest
from experiment_runs import ROOT


@pytest.fixture
def experiment(monkeypatch):
    """Imports a module of experiments/, which is run from the top and not installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module
