"""The log of a run: when it writes, an interrupt while it does, and whether it is that run."""

import json

import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.errors import RunError
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


IDENTITY = {"options": {"k": (1, 2), "sigma": [np.float32(0.5)]}, "key": np.arange(2)}


def test_the_same_run_is_opened_again_whatever_its_numbers_are_made_of(tmp_path):
    run_log.RunLog.create(tmp_path / "run", {**IDENTITY, "command": "x"}, IDENTITY, 40)
    plain = {"options": {"k": [1, 2], "sigma": [0.5]}, "key": [0, 1]}
    for identity in (IDENTITY, plain):
        assert run_log.RunLog.reopen(tmp_path / "run", identity, 40).num == 40


@pytest.mark.parametrize("name", ["config.json", "log/identity.json"])
def test_another_run_is_refused_whichever_file_says_so(tmp_path, name):
    run = tmp_path / "run"
    run_log.RunLog.create(run, {**IDENTITY, "command": "x"}, IDENTITY, 40)
    value = json.loads((run / name).read_text())
    value["options"]["k"] = [1, 3]
    (run / name).write_text(json.dumps(value))
    says = r"is a different run and cannot be resumed: options\.k was \[1, 3\], is now \[1, 2\]; "
    with pytest.raises(RunError, match=says + "undo the change or start a new run"):
        run_log.RunLog.reopen(run, IDENTITY, 40)
    with pytest.raises(RunError, match=says + "give it another name"):
        run_log.RunLog.reopen(run, IDENTITY, 40, mend="give it another name")


def test_an_entry_too_many_or_too_few_is_another_run(tmp_path):
    run = tmp_path / "run"
    run_log.RunLog.create(run, IDENTITY, IDENTITY, 40)
    with pytest.raises(RunError, match=r'different run .*: select was null, is now "race"'):
        run_log.RunLog.reopen(run, {**IDENTITY, "select": "race"}, 40)
    with pytest.raises(RunError, match=r"different run .*: key was \[0, 1\], is now null"):
        run_log.RunLog.reopen(run, {"options": IDENTITY["options"]}, 40)
