"""What several files of this folder share: a written run."""

import pytest
from reported_runs import signals_record, write


@pytest.fixture(scope="session")
def signals_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals") / "run"
    write(signals_record(), folder)
    return folder
