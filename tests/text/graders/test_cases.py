"""Answers that others graded: the cases beside the project, where they are there."""

import json
import pathlib

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text.graders import find

CASES = pathlib.Path(__file__).parents[3].parent / "shared/cases/graders.jsonl"
MODULES = {"code": "code", "countdown": "countdown", "smiles": "smiles", "order": "sequence"}

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases/graders.jsonl")


def cases():
    return [json.loads(line) for line in CASES.read_text().splitlines()] if CASES.exists() else []


@pytest.mark.parametrize(
    "case", cases(), ids=lambda case: f"{case['grader']}: {case['text']!r:.60}"
)
def test_every_case_has_its_score(request, case):
    name, item = case["grader"], dict(case["item"])
    needs = {"code": "confined", "math": "library"}.get(name)
    if needs:
        request.getfixturevalue(needs)
    if name == "smiles":
        pytest.importorskip("rdkit", reason="needs RDKit")
    if name == "order":
        item = {"order": list(item["answer"])}
    module = f"thicket_jax.text.graders.{MODULES[name]}:grade" if name in MODULES else name
    grader = find(module)
    for extraction in ["flexible"] if case.get("why") == "flexible" else ["strict", "flexible"]:
        try:
            score = grader(case["text"], {**item, "extraction": extraction}).score
        except DataError:
            score = 0  # an item that no answer can be right for is refused
        assert score == case["score"], extraction
