"""Mathematics: real gold answers, equivalence, and texts that mean harm."""

import itertools

import pytest
from shared_data import rows

from thicket_jax.errors import DataError
from thicket_jax.text.graders import latex, mathematics

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
    assert latex.normal(r"\tfrac{1}{2} \text{ is it} ") == r"\frac{1}{2}\text{ is it}"


def test_an_answer_that_cannot_be_compared_in_time_is_wrong(library, monkeypatch):
    monkeypatch.setattr(mathematics, "_SECONDS", 0.2)
    answers = ["9^{9^{9^9}}", r"\sum_{k=1}^{10^9} \frac{1}{k}", "{" * 300 + "x" + "}" * 300]
    for answer in [*answers, *answers]:  # also what is remembered
        outcome = mathematics.grade(rf"\boxed{{{answer}}}", {"answer": "5"})
        assert outcome.score == 0 and outcome.timed_out >= (answer == answers[0]), answer
        for quick in ["5", "6", "x+1", "("]:
            assert not mathematics.grade(rf"\boxed{{{quick}}}", {"answer": "5"}).timed_out


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        # relative tolerance: numbers of any size, and no rounded decimals
        (r"\frac{1}{3^{70}}", r"\frac{1}{3^{69}}", False),
        (r"\frac{1}{3^{70}}", "3^{-70}", True),
        ("0.0000007", "0.0000008", False),
        ("7 \\times 10^{-7}", "0.0000007", True),
        (r"\frac{2}{3}", "0.6666667", False),
        (r"\frac{3}{8}", "0.375", True),
        (r"\sqrt{2}", "1.41421356237", False),
        (r"\pi", "3.14159265", False),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        ("1000000000000001", "1000000000000002", False),
        ("0.5\\pi", r"\frac{\pi}{2}", True),
        (r"(\frac13, 1)", "(0.3333333, 1)", False),
        (r"\{0.5, 2\}", r"\{2, \frac12\}", True),
        (r"\{1, 2\}", r"\{1, 3\}", False),
        # thousands
        ("3,\\! 141,\\! 592", "3141592", True),
        ("2{,}718", "2718", True),
        # bases
        ("34_7", "34_6", False),
        ("34_7", "34_{7}", True),
        ("34_7", r"34_{\text{seven}}", True),
        ("34_7", "(34)_{7}", True),
        ("34_7", "34", True),
        ("34_7", "25", False),
        ("1A_{16}", "1a_{16}", True),
        # units
        (r"7\text{ cm}", "7", True),
        ("7", r"7\text{ cm}", True),
        (r"7\text{ cm}", r"7\text{ mm}", False),
        (r"7\text{ cm}", r"7\mathrm{~cm}", True),
        (r"7\text{ inches}", "7 inches", True),
        (r"7\text{ hours}", r"7\text{ h}", True),
        (r"7\text{ cm}^2", r"7\text{ cm}^3", False),
        (r"30^{\circ}", r"30\text{ degrees}", True),
        (r"30^\circ", r"30\text{ radians}", False),
        (r"25\%", "25", True),
        (r"\$12", "12", True),
        (r"\$12", r"12\text{ dollars}", True),
        # variables
        (r"\sqrt{\frac{2}{m}}", r"\frac{\sqrt{2}}{\sqrt{m}}", True),
        ("x^2-1", "(x-1)(x+1)", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\frac{1}{x+y}", r"\frac{1}{x}+\frac{1}{y}", False),
        ("2x+3", "y=2x+3", True),
        # sets
        (r"\emptyset", r"\{\}", True),
        (r"\emptyset", r"\{0\}", False),
        (r"\mathbf{5}", "5", True),
        (r"\text{5}", "5", True),
    ],
)
def test_numbers_units_bases_and_sets(library, gold, answer, right):
    assert mathematics.grade(rf"\boxed{{{answer}}}", {"answer": gold}).score == float(right)


@pytest.mark.parametrize(
    "text",
    ["**5**", "so **5**.", "`5`", "<answer>5</answer>", "<answer> $5$. </answer>", "It is __5__"],
)
def test_a_marked_answer_without_a_box_is_the_flexible_one(library, text):
    assert mathematics.grade(text, {"answer": "5"}).columns == {"strict": 0.0, "flexible": 1.0}
    assert mathematics.grade(text, {"answer": "6", "extraction": "flexible"}).score == 0


def test_a_text_that_runs_on_is_read_up_to_there(library):
    text = "\\boxed{5}\n\nProblem: what is 3+4?\nSolution: \\boxed{7}"
    assert mathematics.grade(text, {"answer": "5"}).columns == {"strict": 1.0, "flexible": 1.0}


def test_same_is_an_equivalence(library):
    answers = [
        "5",
        "x=5",
        r"5\text{ km}",
        r"5\text{ m}",
        "5_8",
        "05_8",
        "5_7",
        r"\frac{10}{2}",
        "5.0",
    ]
    answers += [r"50\%", "50", "0.5", r"\frac12", "0.3333333", r"\frac13", "2^{-80}", "2^{-81}"]
    answers += [r"\{1,2\}", "1,2", "2,1", "5e-1", "3+4i", "4i+3"]
    answers += ["(1,2)", "(2,1)", "x<2", r"(-\infty,2)", r"\emptyset", r"\varnothing"]
    related = {(a, b): mathematics.same(a, b) for a in answers for b in answers}
    assert related["1,2", r"\{1,2\}"] and related["3+4i", "4i+3"] and related["5e-1", "0.5"]
    assert all(related[a, a] for a in answers)
    assert all(related[a, b] == related[b, a] for a, b in related)
    for a, b, c in itertools.product(answers, repeat=3):
        assert not (related[a, b] and related[b, c]) or related[a, c], (a, b, c)
    assert (
        related["5", "x=5"] and related["5.0", r"\frac{10}{2}"] and related["x<2", r"(-\infty,2)"]
    )
