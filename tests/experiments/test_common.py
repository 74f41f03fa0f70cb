"""experiments/common: the table and its file, the command and its exit codes, numbers in a README.

The command runs a toy experiment here: cells that add one, which may fail.
"""

import json
import os
import pathlib
import re
import shutil

import pytest
from experiment_runs import ROOT
from matplotlib.figure import Figure

NAMES = (
    "signals",
    "stories",
    "racing",
    "density_scaling",
    "needle_or_thicket",
    "what_makes_an_ensemble",
)
SETTINGS = {"num": 8, "cases": ({"task": "a", "k": 1}, {"task": "b", "k": 2})}
WHERE = {"cores": 2}


@pytest.fixture
def tables(experiment):
    return experiment("experiments.common.table")


def test_a_table_is_written_with_its_first_record_and_goes_on(tables, tmp_path):
    place, layout = tmp_path / "table.json", tables.Layout()
    table = tables.open_table(place, layout, SETTINGS)
    assert not place.exists() and not table.has("runs", {"seed": 0})
    (added,) = table.append("runs", [{"seed": 0, "at": (1.5, float("nan"))}], WHERE, 3.0)
    assert added == {"seed": 0, "at": [1.5, None], "provenance": WHERE}
    stored = json.loads(place.read_text())
    assert stored == table.entries and list(stored) == ["settings", "runs"]
    again = tables.open_table(place, layout, SETTINGS)
    assert again.has("runs", {"seed": 0}) and not again.has("runs", {"seed": 1})
    again.append("runs", [{"seed": 1}], WHERE, 3.0)
    assert [run["seed"] for run in tables.read_table(place, layout).entries["runs"]] == [0, 1]


def test_a_table_with_one_provenance_adds_up_its_seconds(tables, tmp_path):
    layout = tables.Layout(settings="identity", records=("a", "b"), once=True)
    for part in ("a", "b"):
        table = tables.open_table(tmp_path / "table.json", layout, {"num": 8})
        table.append(part, [{"seed": 0}], WHERE, 1.5)
    assert table.entries == {
        **{"identity": {"num": 8}, "a": [{"seed": 0}], "b": [{"seed": 0}]},
        **{"seconds": 3.0, "provenance": WHERE},
    }


def test_numbers_of_a_record_a_line_are_those_that_are_judged(tables, tmp_path):
    place, layout = tmp_path / "table.json", tables.Layout(digits=3)
    table = tables.open_table(place, layout, {"num": 1})
    (added, _) = table.append("runs", [{"at": [1.23456]}, {"at": 12345.6}], {}, 1.0)
    assert added["at"] == [1.23] and json.loads(place.read_text()) == table.entries
    assert place.read_text().splitlines()[1:] == [
        '"runs": [',
        '{"at":[1.23],"provenance":{}},',
        '{"at":12300.0,"provenance":{}}',
        "]}",
    ]
    table.entries["verdicts"] = ["ahead"]
    table.write()
    written = place.read_text()
    tables.open_table(place, layout, {"num": 1}).write()
    assert place.read_text() == written


def test_other_settings_are_refused_with_what_changed(tables, tmp_path):
    place, layout = tmp_path / "table.json", tables.Layout(noun="searches")
    tables.open_table(place, layout, SETTINGS).append("runs", [{}], {}, 1.0)
    before = place.read_bytes()
    # The order of the cases is nothing that is measured.
    tables.open_table(place, layout, {**SETTINGS, "cases": SETTINGS["cases"][::-1]})
    others = ({"task": "a", "k": 1}, {"task": "b", "k": 3})
    with pytest.raises(Exception, match="has searches of other settings") as error:
        tables.open_table(place, layout, {"num": 9, "cases": others, "more": True})
    said = str(error.value)
    assert "cases.b.k was 2, is now 3; more was null, is now true; num was 8, is now 9;" in said
    assert "cases.a" not in said and "--out" in said and "\n" not in said
    with pytest.raises(Exception, match=r"n0 was null.*; and 4 more; name another"):
        tables.open_table(place, layout, {**SETTINGS, **{f"n{i}": i for i in range(10)}})
    same = {"num": 8, "cases": [{"task": "a", "k": 1}, {"task": "a", "k": 2}]}
    with pytest.raises(Exception, match="cases was"):  # names that are not unique hide nothing
        tables.open_table(place, layout, same)
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not there yet; measure first"),
        ('{"settings": {}, "runs": [', "is damaged"),
        ("[]", "it has no settings, runs"),
        ('{"settings": {}, "records": []}', "it has no runs"),
    ],
)
def test_what_is_no_table_is_said_in_one_line(tables, tmp_path, text, message):
    place = tmp_path / "table.json"
    if text is not None:
        place.write_text(text)
    with pytest.raises(Exception, match=message) as error:
        tables.read_table(place, tables.Layout())
    assert str(place) in str(error.value) and "\n" not in str(error.value)


def test_a_table_is_whole_when_writing_it_is_cut_off(tables, tmp_path, monkeypatch):
    place, layout = tmp_path / "table.json", tables.Layout()
    tables.open_table(place, layout, SETTINGS).append("runs", [{"seed": 0}], {}, 1.0)
    before = place.read_bytes()

    def cut_off(*files):
        raise OSError("the machine is gone")

    for name in ("fsync", "replace"):
        table = tables.open_table(place, layout, SETTINGS)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="gone"):
            patch.setattr(os, name, cut_off)
            table.append("runs", [{"seed": 1}], {}, 1.0)
        assert place.read_bytes() == before
    table = tables.open_table(place, layout, SETTINGS)  # what lies beside it is no hindrance
    table.append("runs", [{"seed": 1}], {}, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    assert len(tables.read_table(place, layout).entries["runs"]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_that_are_committed_open_and_show_what_is_committed(
    name, experiment, tmp_path, monkeypatch
):
    """In words and numbers; how figures look is not compared, and they are not rendered."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: pathlib.Path(path).touch())
    results = ROOT / "experiments" / name / "results"
    main = experiment(f"experiments.{name}.__main__").main
    (declared,) = main.args
    shutil.copy(results / "table.json", tmp_path)
    table = experiment("experiments.common.table")
    table.read_table(tmp_path / "table.json", declared.layout).write()
    assert (tmp_path / "table.json").read_bytes() == (results / "table.json").read_bytes()
    assert main(["--draw", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "table.md").read_text() == (results / "table.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in results.iterdir()}


class Toy:
    """An experiment whose cells add one to their seed; it keeps what was asked of it."""

    def __init__(self, command, **more):
        self.command, self.broken, self.prepared, self.measured = command, None, [], []
        experiment = command.Experiment(
            name="toy",
            quick="little",
            arguments=lambda parser: parser.add_argument("--num", type=int, default=8),
            plan=self.plan,
            describe=lambda cell, records: [f"seed {r['seed']}: {r['found']}" for r in records],
            judge=lambda table: {"sum": sum(run["found"] for run in table["runs"])},
            present=self.present,
            **more,
        )
        self.main = lambda *words: command.main(experiment, words)

    def plan(self, options, work):
        from thicket_jax.errors import check_count

        assert work.is_dir()
        check_count("num", options.num)
        cells = [
            self.command.Cell({"seed": seed}, lambda seed=seed: self.measure(seed))
            for seed in range(options.seeds or 2)
        ]
        return self.command.Plan({"num": options.num}, cells, self.prepared.append)

    def measure(self, seed):
        if seed == 1 and self.broken is not None:
            raise self.broken
        self.measured.append(seed)
        return [{"found": seed + 1}]

    def present(self, table, folder):
        (folder / "sum.png").write_text("")
        texts = {"first": f"sum {table['sum']}", "second": "end"}
        return self.command.Shown(texts, [f"in all {table['sum']}"], ["sum.png"])


@pytest.fixture
def toy(experiment, monkeypatch, tmp_path):
    """The toy in a folder of experiments of its own, where temporary folders are, too."""
    command = experiment("experiments.common.command")
    monkeypatch.setattr(command, "EXPERIMENTS", tmp_path)
    monkeypatch.setattr(command.tempfile, "tempdir", str(tmp_path))
    readme = "".join(f"<!-- begin {x} -->\n<!-- end {x} -->\n" for x in ("first", "second"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "README.md").write_text(readme)
    return Toy(command)


def test_a_command_measures_judges_shows_and_fills_its_own_readme(toy, tmp_path, capsys):
    assert toy.main("--out", str(tmp_path / "other")) == 0
    readme = tmp_path / "toy" / "README.md"
    assert "sum" not in readme.read_text() and not (tmp_path / "toy" / "results").exists()
    capsys.readouterr()
    assert toy.main() == 0
    place = tmp_path / "toy" / "results" / "table.json"
    assert capsys.readouterr().out.splitlines() == [
        f"0 of 3 runs are in {place}",
        *("[1/3] seed 0: 1", "[2/3] seed 1: 2", "[3/3] seed 2: 3"),
        "in all 6",
        f"wrote {place}, table.md and sum.png",
    ]
    assert (place.parent / "table.md").read_text() == "sum 6\n\nend\n"
    assert "<!-- begin first -->\n\nsum 6\n\n<!-- end first -->" in readme.read_text()
    table = json.loads(place.read_text())
    assert table["settings"] == {"num": 8} and table["sum"] == 6
    assert [run["found"] for run in table["runs"]] == [1, 2, 3]
    assert all({"versions", "cores"} <= set(run["provenance"]) for run in table["runs"])
    assert not list(tmp_path.glob("experiments-*"))  # the folder to work in is gone


def test_a_table_that_was_cut_off_goes_on(toy, tmp_path, capsys):
    words = ("--out", str(tmp_path / "out"))
    toy.broken = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        toy.main(*words)
    assert toy.measured == [0] and not (tmp_path / "out" / "table.md").exists()
    toy.broken = None
    assert toy.main(*words) == 0 and toy.measured == [0, 1, 2]
    assert [[cell.name["seed"] for cell in cells] for cells in toy.prepared] == [[0, 1, 2], [1, 2]]
    assert "1 of 3 runs are in" in capsys.readouterr().out
    before = (tmp_path / "out" / "table.json").read_bytes()
    assert toy.main(*words) == 0 and toy.main("--draw", *words) == 0
    assert toy.measured == [0, 1, 2] and len(toy.prepared) == 2
    assert (tmp_path / "out" / "table.json").read_bytes() == before


def test_errors_are_one_line_and_exit_code_2(toy, tmp_path, capsys):
    from thicket_jax.errors import DataError

    out = tmp_path / "out"

    def error(*words):
        assert toy.main(*words, "--out", str(out)) == 2
        said = capsys.readouterr().err
        assert said.startswith("experiments.toy: ") and len(said.splitlines()) == 1
        return said

    assert "num=0 must be a whole number" in error("--num", "0")
    assert "seeds=0 must be a whole number" in error("--seeds", "0")
    assert "table.json is not there yet" in error("--draw")
    assert not out.exists()
    toy.broken = DataError("the lines are gone")
    assert "the lines are gone" in error()
    assert [run["seed"] for run in json.loads((out / "table.json").read_text())["runs"]] == [0]
    before = (out / "table.json").read_bytes()
    assert "has runs of other settings: num was 8, is now 9;" in error("--num", "9")
    assert (out / "table.json").read_bytes() == before
    out = out / "table.json"
    assert "cannot be made (File exists)" in error()
    with pytest.raises(SystemExit) as left:
        toy.main("--quick", "--draw")
    assert left.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_a_table_without_a_record_is_not_shown(toy, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "table.json").write_text('{"settings": {"num": 8}, "runs": []}')
    assert toy.main("--draw", "--out", str(out)) == 2
    assert "has no runs yet: nothing can be shown" in capsys.readouterr().err


def test_the_quick_form_takes_one_seed_and_a_temporary_folder(toy, tmp_path, capsys):
    for words, seeds in ((("--quick",), [0]), (("--quick", "--seeds", "2"), [0, 1])):
        toy.measured.clear()
        assert toy.main(*words) == 0 and toy.measured == seeds
        place = re.search(r"wrote (\S*)/table.json", capsys.readouterr().out)[1]
        assert place.startswith(str(tmp_path / "experiments-toy-"))
    assert not (tmp_path / "toy" / "results").exists()


def test_seeds_are_left_to_an_experiment_that_says_none(toy, tmp_path):
    own = Toy(toy.command, seeds=None)
    assert own.main("--quick", "--out", str(tmp_path / "out")) == 0 and own.measured == [0, 1]


def test_readme_text_is_replaced_between_its_markers_alone(experiment, tmp_path):
    readme = experiment("experiments.common.readme")
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n")
    for _ in range(2):
        readme.replace_between(path, "x", "new")
        assert path.read_text() == "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n"
    with pytest.raises(Exception, match="must have one '<!-- begin y -->'"):
        readme.replace_between(path, "y", "new")


def test_what_a_result_was_measured_on_names_no_machine(experiment):
    machine = experiment("experiments.common.machine")
    where = machine.provenance()
    assert set(where) == {"versions", "platform", "device", "devices", "cores", "processor"}
    assert where["devices"] == 8 and where["cores"] == machine.cores() >= 1
    said = machine.sentence(where)
    assert said.startswith(f"Measured on {where['cores']} cores of ") and "8 JAX device(s)" in said
    where["versions"]["torch"] = "2.13.0"
    gpu = {**where, "platform": "gpu", "device": "NVIDIA H100"}
    assert "on NVIDIA H100, " in machine.sentence(gpu) and "torch 2.13.0" in machine.sentence(gpu)
    assert os.uname().nodename not in json.dumps(where)
