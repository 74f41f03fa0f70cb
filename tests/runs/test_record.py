"""A finished run, read: what a search wrote, and damage by name."""

import json
import math
import pathlib
import shutil

import numpy as np
import pytest
from reported_runs import ARRAYS, arrays, record, save, write

from thicket_jax.cli.main import main
from thicket_jax.errors import RunError
from thicket_jax.runs import record as run_record

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    write(record(), folder)
    return folder


def test_load_reads_what_a_search_wrote(tmp_path):
    run = record(exhibits={"context": np.arange(3)})
    write(run, tmp_path / "run")
    read = run_record.load(str(tmp_path / "run"))
    assert read.config == run.config
    assert read.experts == run.experts
    assert read.timing["experts_per_s"] == 2.5
    np.testing.assert_array_equal(read.exhibits["context"], np.arange(3))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(read, name), getattr(run, name))
    assert read.failed.tolist() == [False] * 4 + [True]
    assert read.ranks.tolist() == [1, 3, 0, 2, 4]
    assert math.isnan(read.scores[4])
    assert read.kept_tests().tolist() == [0.5, 1.0, 0.5]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def edit(change):
    def damage(path):
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "mend"),
    [
        ("config.json", truncate, "new run"),
        ("config.json", pathlib.Path.unlink, "not a run directory"),
        ("config.json", lambda p: p.write_text("[]"), "it has no task.*new run"),
        ("config.json", edit(lambda v: v.pop("metric")), "it has no metric.*new run"),
        ("config.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "new run"),
        ("experts.json", truncate, "thicket resume"),
        ("experts.json", pathlib.Path.unlink, "thicket resume"),
        ("experts.json", edit(lambda v: v["experts"][1].pop("sigma")), "sigma.*thicket resume"),
        ("experts.json", edit(lambda v: v["experts"][1].update(rank=0)), "ranks are not 0 to 4"),
        ("experts.json", edit(lambda v: v["experts"][1].update(score=None)), "has no score"),
        ("experts.json", edit(lambda v: v["experts"][1].update(sigma=-1)), "sigma"),
        ("experts.json", edit(lambda v: v.update(experts=[])), "no experts"),
        ("experts.json", edit(lambda v: v.update(experts=3)), "TypeError"),
        ("experts.json", edit(lambda v: v["experts"][3].pop("sign")), "an expert has no sign"),
        ("experts.json", edit(lambda v: v["base"].update(score=None)), "base has no score"),
        ("items.npz", truncate, "thicket resume"),
        ("items.npz", flip, "thicket resume"),
        ("items.npz", pathlib.Path.unlink, "thicket resume"),
        ("items.npz", lambda p: p.write_bytes(b""), "thicket resume"),
        ("items.npz", arrays(train=np.ones((4, 4))), r"train is \[4, 4\] where 5×4 is"),
        ("items.npz", arrays(answers=np.ones((3, 2))), r"answers is \[3, 2\] where \?×4 is"),
        ("items.npz", arrays(targets=np.ones(())), r"targets is \[\] where"),
        ("items.npz", arrays(answers=np.ones((9, 4))), "answers of 9 experts of 5"),
        ("items.npz", arrays(base_answers=np.ones(3)), r"base_answers is \[3\] where 4 is"),
        ("results.json", truncate, "thicket report"),
        ("results.json", lambda p: p.write_text("{}"), "it has no timing"),
    ],
)
def test_damage_is_named(whole_run, tmp_path, name, damage, mend):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    run_record.load(folder)
    damage(folder / name)
    with pytest.raises(RunError, match=mend) as caught:
        run_record.load(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unfinished_and_absent_runs(tmp_path):
    folder = save(record(), tmp_path / "run")
    assert run_record.load(folder).timing == {}  # killed before its report: the log is complete
    (folder / "items.npz").unlink()
    with pytest.raises(RunError, match=f"unfinished.*thicket resume {folder}"):
        run_record.load(folder)
    (folder / "experts.json").unlink()
    with pytest.raises(RunError, match=f"no experts.json; thicket resume {folder}"):
        run_record.load(folder)
    with pytest.raises(RunError, match="nowhere is not a run directory"):
        run_record.load(tmp_path / "nowhere")


def raced(delta, bounds, sentence, stopped=2):
    """A run whose race stopped two of its experts."""
    run = record()
    for row, seen in zip(run.experts["experts"], (4, 2, 4, 4, 2), strict=True):
        row.update(items=seen, base=0.5 if seen == 4 else 1.0)
    run.train[1, 2:] = np.nan
    run.experts["experts"][1]["score"] = 0.5
    for rank, i in enumerate((2, 0, 3, 1, 4)):
        run.experts["experts"][i]["rank"] = rank
    guarantee = {"delta": delta, "bounds": bounds, "comparisons": 6, "stopped": stopped}
    rounds = [{"experts": 5, "start": 0, "stop": 2}, {"experts": 3, "start": 2, "stop": 4}]
    run.config["task"] = "mine"
    run.experts["selection"] = {
        "rule": "race", "delta": 0.05, "bounds": bounds, "rounds": rounds, "evaluations": 16,
        "share": 0.8, "guarantee": {**guarantee, "sentence": sentence},
    }  # fmt: skip
    return run


@pytest.mark.parametrize("delta", [0.05, None], ids=["as release 0.2.0 stored it", "as now"])
def test_a_race_without_bounds_is_a_heuristic_wherever_its_run_is_shown(delta, tmp_path, capsys):
    """Also a run that says otherwise, as it was made before."""
    said = "With probability at least 0.95, the 3 kept experts are the best. On a condition."
    for bounds, stopped in ((None, 2), ([0.0, 1.0], 2), (None, 0)):
        folder = tmp_path / f"{bounds}{stopped}"
        write(raced(delta, bounds, said, stopped), folder)
        assert main(["report", str(folder)]) == 0
        shown = [capsys.readouterr().out]
        shown += [(folder / x).read_text() for x in ("results.json", "report.md", "report.html")]
        for text in shown:
            assert ("heuristic" in text) == (bounds is None and stopped > 0)
            assert ("robability at least" in text) == (bounds is not None)
            assert ("Nothing could be stopped" in text) == (not stopped)
