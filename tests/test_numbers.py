"""A number that a docstring states as measured is held by a test, or is not stated."""

import ast
import pathlib
import re

import thicket_jax

TESTS = pathlib.Path(__file__).parent
WORDS = "two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|a hundred|a thousand"
STATED = re.compile(
    r"\d\s?%"
    rf"|\b(\d[\d.]*|{WORDS}|several|many) times (slower|faster|as|less|more|longer|larger|smaller)"
    r"|\bby (half|a third|a quarter|a tenth)\b|\bhalf as\b|\btwice as\b"
)
HELD = {
    "experts/laws.py spectral": "experts/test_scales.py "
    "test_the_docstring_of_dense_laws_states_how_far_below_the_limit_norms_are",
    "experts/low_rank.py spectral": "experts/test_scales.py "
    "test_the_docstring_states_how_far_below_the_edge_norms_are",
    "analysis/__init__.py": "analysis/test_intervals.py test_paired_difference_covers_the_truth",
    "analysis/transfer.py Control": "analysis/test_transfer.py "
    "test_the_null_range_holds_random_selections",
    "runs/log.py most_per_call": "search/test_resume.py "
    "test_a_segment_is_written_at_least_every_five_percent",
}
"""Where a docstring states one → the test that holds it."""


def stated():
    root = pathlib.Path(thicket_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        for node in ast.walk(ast.parse(path.read_text())):
            text = (
                " ".join((ast.get_docstring(node) or "").split()) if isinstance(node, kinds) else ""
            )
            if STATED.search(text):
                yield f"{path.relative_to(root)} {getattr(node, 'name', '')}".strip(), text


def test_numbers_that_docstrings_state_are_held_by_tests():
    found = dict(stated())
    assert found.keys() == HELD.keys()
    for place, test in HELD.items():
        file, name = test.split()
        assert f"def {name}(" in (TESTS / file).read_text(), place
