"""Finding graders: by name, module and file; what a user's own may return."""

import doctest
import importlib

import pytest

from thicket_jax.errors import ArgumentError
from thicket_jax.text import graders
from thicket_jax.text.graders import mathematics, numbers
from thicket_jax.text.grading import Outcome


@pytest.mark.parametrize(
    "name",
    ["alarm", "countdown", "hero", "marked", "numbers", "sequence", "smiles", "words"],
)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(f"thicket_jax.text.graders.{name}")
    assert doctest.testmod(module).failed == 0


def test_the_examples_of_the_package_and_of_mathematics_run(library):
    assert doctest.testmod(graders).failed == 0
    assert doctest.testmod(mathematics).failed == 0


def test_short_names_are_functions():
    for spec in graders.GRADERS:
        if spec == "math":
            continue
        found = graders.find(spec)
        assert isinstance(found("72", {"answer": "72"}), Outcome)
    assert graders.find("numeric").columns == numbers.COLUMNS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, Outcome("a b", 1.0)),
        (0.5, Outcome("a b", 0.5)),
        (("b", False), Outcome("b", 0.0)),
        ((None, 0), Outcome(None, 0.0)),
        (Outcome("b", 1, {"x": True}), Outcome("b", 1.0, {"x": 1.0})),
    ],
)
def test_a_users_grader_may_return_less_than_an_outcome(value, expected):
    assert graders.outcome(value, " a\nb ") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "its score is None"),
        ("1", "its score is '1'"),
        (float("nan"), "its score is nan"),
        ((72, True), "its answer is 72"),
        (Outcome("a", 1.0, {"x": float("inf")}), "its x is inf"),
    ],
)
def test_what_is_no_outcome_is_an_error(value, message):
    with pytest.raises(TypeError, match=message):
        graders.outcome(value, "")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("numbers", "is unknown; choose one of: exact, numeric, math, contains-word; or name"),
        (":grade", "is unknown"),
        ("no_such_module:grade", "there is no module no_such_module"),
        ("thicket_jax.text.nothing:grade", "there is no module thicket_jax.text.nothing"),
        ("no/such/file.py:grade", r"there is no file .*no/such/file.py"),
        ("thicket_jax.text.graders.hero:mark", "has no function mark; it has: .*grade"),
        ("thicket_jax.text.graders.hero:Mapping", "takes"),
        ("thicket_jax.text.graders.numbers:strict", "must take \\(text, item\\)"),
    ],
)
def test_a_grader_that_is_not_there_is_one_line(spec, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        graders.find(spec)
    assert "\n" not in str(raised.value)


def test_a_grader_may_be_in_a_file_or_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_helper.py").write_text("RIGHT = 'yes'\n")
    (tmp_path / "my_grader.py").write_text(
        "from my_helper import RIGHT\ndef mark(text, item):\n    return RIGHT in text\n"
    )
    (tmp_path / "broken.py").write_text("import not_installed_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    for spec in ["my_grader.py:mark", f"{tmp_path}/my_grader.py:mark", "my_grader:mark"]:
        assert graders.find(spec)("oh yes", {}) == Outcome("oh yes", 1.0)
    for spec in ["broken:mark", "broken.py:mark"]:
        with pytest.raises(ArgumentError, match="raised ModuleNotFoundError: No module named"):
            graders.find(spec)
