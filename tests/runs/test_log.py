"""The log of a run: when it writes, and an interrupt while it does."""

import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.runs import log as run_log
from thicket_jax.scoring.scores import Scores


def test_segments_are_written_by_time_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "SECONDS_BETWEEN_SEGMENTS", -1.0)
    log = run_log.RunLog.create(tmp_path / "run", {}, {}, 1000)
    log.append(0, tj.Scores(np.ones(2, np.float32), np.zeros(2, bool)), 0.1)
    assert [start for start, _, _ in log.segments()] == [0]


@pytest.mark.parametrize("written", [True, False], ids=["after", "before"])
def test_an_interrupt_in_the_middle_of_a_save_loses_nothing(written, tmp_path, monkeypatch):
    """The search flushes once more on its way out; what is there already stays as it is."""
    log = run_log.RunLog.create(tmp_path / "run", {}, {}, 40)
    save = run_log.RunLog._save

    def interrupted(self, name, tree):
        if written:
            save(self, name, tree)
        else:
            (self.folder / f"{name}.orbax-checkpoint-tmp-1").mkdir()
        raise KeyboardInterrupt

    scores = Scores(np.arange(2, dtype=np.float32), np.zeros(2, bool))
    monkeypatch.setattr(run_log.RunLog, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append(0, scores, 1.0)
    monkeypatch.setattr(run_log.RunLog, "_save", save)
    log.flush()
    assert [path.name for path in log.folder.glob("experts_*")] == ["experts_00000000_00000002"]
    ((start, found, seconds),) = log.segments()
    assert (start, found.values.tolist(), seconds) == (0, [0, 1], 1.0)
