"""No byte of a run directory changes unseen: its manifest is over every file."""

import gc
import json
import re
import shutil

import numpy as np
import pytest
import sealed_runs
from reported_runs import arrays

from thicket_jax.cli.main import main
from thicket_jax.errors import RunError
from thicket_jax.reports import figures, landscape_page, report, results
from thicket_jax.runs import digests, export
from thicket_jax.runs import record as run_record

pytestmark = pytest.mark.usefixtures("undrawn")
JSON = ("config.json", "experts.json", "results.json", "manifest.json", "log/identity.json")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return sealed_runs.search(sealed_runs.whole_record(), tmp_path_factory.mktemp("sealed") / "run")


@pytest.fixture
def run(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "run")
    return tmp_path / "run"


def flips(path, places, change):
    """Changes one byte after another; leaves the file as it was."""
    whole = path.read_bytes()
    for place in places(whole):
        flipped = bytearray(whole)
        flipped[place] = change(whole[place])
        path.write_bytes(flipped)
        yield place
    path.write_bytes(whole)


def digits(whole):
    places = [match.start() for match in re.finditer(rb"[0-9]", whole)]
    return places[:: 1 + len(places) // 300]  # of the manifest, which is all digests, a part


@pytest.mark.parametrize("name", JSON)
def test_every_digit_of_every_json_file_counts(run, name):
    run_record.load(run)
    count = 0
    for _ in flips(run / name, digits, lambda byte: 48 + (byte - 47) % 10):
        count += 1
        with pytest.raises(RunError, match=rf"{re.escape(str(run))}\S* is damaged"):
            run_record.load(run)
    assert count > 20
    run_record.load(run)


def test_a_sample_of_the_bytes_of_every_file_counts(run):
    rng = np.random.default_rng(0)
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    assert len(files) > 20
    for path in files:

        def some(whole):
            return rng.integers(0, len(whole), 8)

        segment = run / "/".join(path.relative_to(run).parts[:2])
        for _ in flips(path, some, lambda byte: byte ^ (1 << int(rng.integers(8)))):
            with pytest.raises(RunError, match="is damaged") as caught:
                run_record.load(run)
            assert str(path) in str(caught.value) or str(segment) in str(caught.value)
            assert "\n" not in str(caught.value)
    run_record.load(run)


def leaves(value, path=()):
    """(path, value) of everything in a JSON value that is no object and no list."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in inside:
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, name))
        else:
            yield (*path, name), item


def other(value):
    """A value of the same kind that is not `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if value is None else f"{value}x"


@pytest.mark.parametrize("name", JSON)
def test_every_value_of_every_json_file_counts(run, name):
    whole = json.loads((run / name).read_text())
    places = [path for path, _ in leaves(whole)]
    for path in places[:: 1 + len(places) // 100]:
        value = json.loads(json.dumps(whole))
        inside = value
        for part in path[:-1]:
            inside = inside[part]
        inside[path[-1]] = other(inside[path[-1]])
        (run / name).write_text(json.dumps(value))
        with pytest.raises(RunError, match=rf"{re.escape(name)} is damaged"):
            run_record.load(run)
    assert len(places) >= 12


def test_a_file_of_another_run_and_half_a_file_are_named_and_a_file_too_many_changes_nothing(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    other_run = sealed_runs.whole_record()
    other_run.train[1] = [0, 1, 0, 0]
    sealed_runs.search(other_run, tmp_path / "other")
    (run / "notes.txt").write_text("mine")
    copied = run / "landscapes" / "copied"
    copied.mkdir(parents=True)
    (copied / "landscape.json").write_text("{}")
    count = 0
    for path in [path for path in sorted(run.rglob("*")) if path.is_file()]:
        whole, beside = path.read_bytes(), tmp_path / "other" / path.relative_to(run)
        theirs = [beside.read_bytes()] if beside.is_file() else []
        for content in [whole[: len(whole) // 2], b"", *theirs]:
            path.write_bytes(content)
            if path.name == "notes.txt" or path.parent == copied or content == whole:
                run_record.load(run)
                continue
            count += 1
            with pytest.raises(RunError, match="is damaged"):
                run_record.load(run)
        path.write_bytes(whole)
    assert count > 60
    (copied / "landscape.json").write_text("{}")
    assert landscape_page.load_all(run) == []


def test_a_manifest_that_was_deleted_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    whole = sealed_runs.whole_record()
    whole.config["digests"] = digests.NAME
    run = sealed_runs.search(whole, tmp_path / "run")
    run_record.load(run)
    (run / "manifest.json").unlink()
    for read in (run_record.load, export.load_population, digests.check_unfinished):
        with pytest.raises(RunError, match=r"manifest\.json is missing; restore it"):
            read(run)


def test_a_segment_of_another_run_or_of_another_place_is_named(tmp_path):
    whole, logs = sealed_runs.whole_record(), {}
    for name, seed in (("mine", 7), ("theirs", 8)):
        whole.config["seed"] = seed
        logs[name] = sealed_runs.log_of(whole, tmp_path / name)
        logs[name].append(0, sealed_runs.scores_of(whole, 0, 2), 1.0)
        logs[name].flush()
    first = "experts_00000000_00000002"
    mine, theirs = (logs[name].folder for name in logs)
    copies = ((mine / first, mine / "experts_00000002_00000004"), (theirs / first, mine / first))
    for source, to in copies:
        (start,) = (start for start, _, _ in logs["mine"].segments())
        assert start == 0
        kept = shutil.move(to, tmp_path / "kept") if to.exists() else None
        shutil.copytree(source, to)
        with pytest.raises(RunError, match=rf"{to.name} is damaged: it is of another run, or of "):
            list(logs["mine"].segments())
        shutil.rmtree(to)
        if kept is not None:
            shutil.move(kept, to)
    for log in logs.values():
        log.close()


# Orbax's own threads end badly where a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bytes_of_an_interrupted_run_count_or_change_nothing(tmp_path):
    whole = sealed_runs.whole_record()
    run, rng = tmp_path / "run", np.random.default_rng(1)
    log = sealed_runs.log_of(whole, run)
    log.append(0, sealed_runs.scores_of(whole, 0, 3), 1.0)
    log.flush()
    log.close()

    def read():
        log = sealed_runs.log_of(whole, run, resume=True)
        try:
            return [(start, np.asarray(s.values).tolist()) for start, s, _ in log.segments()]
        finally:
            log.close()

    wanted = read()
    kept = (run / "manifest.json").read_bytes()
    for path in [path for path in run.rglob("*") if path.is_file()]:
        for _ in flips(path, lambda whole: rng.integers(0, len(whole), 2), lambda byte: byte ^ 4):
            try:
                assert read() == wanted
            except RunError as error:
                assert "is damaged" in str(error) or "is a different run" in str(error)
        (run / "manifest.json").write_bytes(kept)
    gc.collect()  # here, where what those threads leave is expected


EDITS = {
    "id": lambda v: v["experts"][2].update(id=9),
    "sigma": lambda v: v["experts"][2].update(sigma=0.003),
    "sign": lambda v: v["experts"][2].update(sign=-1.0),
    "key": lambda v: v["population"].update(key=[0, 8]),
    "noise": lambda v: v["population"]["noise"].update(scale="relative"),
    "prng": lambda v: v["population"].update(prng="threefry4x32"),
    "ranks": lambda v: (v["experts"][0].update(rank=0), v["experts"][2].update(rank=1)),
    "score": lambda v: v["experts"][1].update(score=0.2501),
    "scores and ranks": lambda v: (
        v["experts"][0].update(score=2.0, rank=0),
        v["experts"][2].update(rank=1),
    ),
    "failed": lambda v: v["experts"][3].update(failed=True),
    "failed, with its score": lambda v: (
        v["experts"][2].update(failed=True, score=None, rank=3),
        v["experts"][0].update(rank=0),
        v["experts"][3].update(rank=1),
        v["experts"][1].update(rank=2),
    ),
    "base": lambda v: v["base"].update(score=0.51),
}


@pytest.mark.parametrize("manifest", [True, False], ids=["with a manifest", "without"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_expert_is_never_exported(run, edit, manifest, capsys):
    if not manifest:
        (run / "manifest.json").unlink()
    if edit is EDITS["failed, with its score"] and not manifest:
        pytest.skip("a whole failure, of score, mark and ranks, is what a run may have")
    export.load_population(run)
    value = json.loads((run / "experts.json").read_text())
    edit(value)
    (run / "experts.json").write_text(json.dumps(value))
    for read in (run_record.load, export.load_population):
        with pytest.raises(RunError, match=r"experts\.json.* is damaged"):
            read(run)
    for command in ("report", "landscape", "export"):
        more = ["--rank", "1", "--to", str(run / "to")] if command == "export" else []
        assert main([command, str(run), *more]) == 2
        assert "experts.json" in capsys.readouterr().err


def test_other_items_than_the_scores_were_made_of_are_named(run):
    (run / "manifest.json").unlink()
    run_record.load(run)
    arrays(train=np.ones((5, 4), np.float32))(run / "items.npz")
    with pytest.raises(RunError, match="is not the mean of its items"):
        run_record.load(run)


def test_what_is_made_again_is_entered_again_and_old_damage_is_not_blessed(run, capsys):
    (run / "report.html").write_text("edited")
    with pytest.raises(RunError, match=r"report\.html is damaged.*thicket report "):
        run_record.load(run)
    assert main(["report", str(run)]) == 0
    capsys.readouterr()
    run_record.load(run)
    # A part of the log is damaged: a report cannot make it again, nor hide it.
    segment = next((run / "log").glob("experts_*/_METADATA"))
    segment.write_bytes(segment.read_bytes()[:-1])
    read = run_record.load(run, besides=("log",))
    report.write(read, run, results.build_results(read))
    with pytest.raises(RunError, match="experts_0.* is damaged"):
        run_record.load(run)
    shutil.rmtree(segment.parent)
    run_record.load(run)


def test_a_kill_while_files_are_made_again_leaves_a_run_that_is_read(run):
    with pytest.raises(KeyboardInterrupt), digests.changing(run, *digests.REPORT):
        (run / "report.html").write_text("half")
        raise KeyboardInterrupt
    run_record.load(run)


def test_a_run_without_digests_stays_so_and_says_it_once(run, capsys):
    (run / "manifest.json").unlink()
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "carries no digests" in said[0]
    assert not (run / "manifest.json").exists()
