"""Mathematics: real gold answers, equivalence, and texts that mean harm."""

import itertools

import pytest
from shared_data import rows

from thicket_jax.errors import DataError
from thicket_jax.text.graders import mathematics

LONG = 20_000


def test_every_gold_answer_of_math500_is_right(library):
    items = rows("math500/test.jsonl")
    wrong = [item["answer"] for item in items if mathematics.grade(item["answer"], item).score != 1]
    assert len(items) == 500 and wrong == []
    for gold in (mathematics._gold(item)[0] for item in items[::5]):  # not as equal strings
        parsed = list(mathematics._parse(gold))
        assert len(parsed) == 2 and mathematics._library().verify(parsed, parsed), gold


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac12", r"\dfrac{2}{4}", True),
        ("1234", "1{,}234", True),
        ("1234", "1, 234", False),
        ("1,-2", r"-2 \text{ and } 1", True),
        ("1,-2", "1", False),
        (["1", "-2"], r"x=1 \text{ or } x=-2", True),
        ("(1,2)", "(2,1)", False),
        ("(-\\infty,2)", "x<2", True),
        ("90^\\circ", "90", True),
        (r"\text{even}", "Even", True),
        ("even", "vene", False),
        (r"\text{(C)}", "C", True),
        (r"\text{(C)}", "B", False),
        ("5", "", None),
        ("5", "\ud800", False),
        ("5", "(" * 600 + "5" + ")" * 600, False),
        ("10^{10}", "10000000000", True),
    ],
)
def test_equivalence_is_mathematical(library, gold, answer, right):
    outcome = mathematics.grade(rf"so \boxed{{{answer}}}.", {"answer": gold})
    assert outcome.score == float(bool(right))
    assert (outcome.answer is None) == (right is None)


def test_olympiad_answers_have_parts_units_and_tolerances(library):
    triples = {"final_answer": ["$(1,8,19), (2,7,13), (4,5,7)$"], "is_multiple_answer": True}
    speed = {"final_answer": ["5000"], "unit": r"$\mathrm{m/s}$", "error": None}
    two = {"final_answer": ["2, 3"], "error": "1e-1,2e-1"}
    for item, answer, right in [
        (triples, "(2,7,13),(4,5,7),(1,8,19)", True),
        (triples, "(2,7,13),(4,5,7)", False),
        (speed, r"5 \times 10^{3} \mathrm{~m/s}", True),
        (speed, r"5 \times 10^{4} \mathrm{~m/s}", False),
        (two, "2.1, 3.2", True),
        (two, "2.2, 3", False),
        ({"answer": "3.1", "error": "1e-1"}, "3.2", True),
        ({"answer": "3.1"}, "3.14", False),
    ]:
        assert mathematics.grade(rf"\boxed{{{answer}}}", item).score == right, (item, answer)
    with pytest.raises(DataError, match="is empty"):
        mathematics.grade("1", {"final_answer": None})


def test_without_a_box_the_flexible_answer_is_the_last_expression(library):
    item = {"answer": "0.5", "extraction": "flexible"}
    for text in ["The final answer is $\\frac{1}{2}$.", "so it is 1/2.", "x\n" * LONG + "so 1/2"]:
        assert mathematics.grade(text, item).columns == {"strict": 0.0, "flexible": 1.0}
    assert mathematics.grade("I do not know", item).answer is None


def test_the_same_answer_is_written_in_many_ways(library):
    answers = [r"\frac{1}{2}", "0.5", r"\frac{2}{4}", "x=0.5"]
    assert all(mathematics.same(a, b) for a, b in itertools.permutations(answers, 2))
    assert not mathematics.same("0.5", "0.25")
    assert mathematics.normal(r"\tfrac{1}{2} \text{ is it} ") == r"\frac{1}{2}\text{ is it}"


def test_an_answer_that_cannot_be_compared_in_time_is_wrong(library, monkeypatch):
    monkeypatch.setattr(mathematics, "_SECONDS", 0.2)
    answers = ["9^{9^{9^9}}", r"\sum_{k=1}^{10^9} \frac{1}{k}", "{" * 300 + "x" + "}" * 300]
    for answer in answers:
        assert mathematics.grade(rf"\boxed{{{answer}}}", {"answer": "5"}).score == 0
