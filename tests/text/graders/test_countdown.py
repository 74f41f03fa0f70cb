"""Countdown: expressions as models write them, in exact arithmetic."""

import fractions
import random

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text.graders import countdown
from thicket_jax.text.grading import Outcome

LONG = 20_000

PUZZLE = {"numbers": [4, 6, 8, 2], "target": 24}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("4 * 8 - 6 - 2", "valid:24"),
        ("4 × 8 − 6 − 2 = 24", "valid:24"),
        (r"\(4 \times 8 - 6 - 2\)", "valid:24"),
        ("((8 x 4) - (6 + 2))", "valid:24"),
        ("8 ÷ 2 · 4 + 6", "valid:22"),
        ("2 / 4 / 6 / 8", "valid:1/96"),
        ("4 * 8 - 6 - 2 = 25", None),
        ("4 * 8 = 32 - 6 - 2", None),
        ("4 * 8 - 6", None),
        ("4 * 8 - 6 - 2 + 2 - 2", None),
        ("24", None),
        ("4 ** 8 - 6 - 2", None),
        ("8 // 4 * 6 * 2", None),
        ("-(6 + 2 - 4 * 8)", None),
        ("4(8) - 6 - 2", None),
        ("4 8 - 6 2", None),
        ("4 * 8 - 6 - 2)", None),
        ("(4 * 8 - 6 - 2", None),
        ("() 4 * 8 - 6 - 2", None),
        ("6 / (8 - 4 * 2)", None),
        ("4.0 * 8 - 6 - 2", None),
        ("4 * 8 - 6 - 2 + 0 * " + "9" * LONG, None),
        ("4 * 8 - 6 - 2 = " + "9" * LONG, None),
        ("(" * LONG + "4 * 8 - 6 - 2" + ")" * LONG, "valid:24"),
        ("__import__('os').abort()", None),
    ],
)
def test_an_expression_uses_each_number_once_and_the_four_operations(expression, answer):
    outcome = countdown.grade(f"<answer>1</answer> so <answer>{expression}</answer>", PUZZLE)
    assert outcome.score == float(answer == "valid:24") == outcome.columns["flexible"]
    if answer is None:
        assert outcome.answer.startswith("invalid:") and len(outcome.answer) < 300
    else:
        assert outcome.answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "First 4 * 8 = 32.\n**Answer: 4 * 8 - 6 - 2 = 24**.\nIt works!",
        r"\boxed{4*8-6-2}",
        "I think:\n<answer>4*8-6-2",
    ],
)
def test_without_tags_the_last_expression_is_the_flexible_answer(text):
    assert countdown.grade(text, PUZZLE) == Outcome(None, 0.0, {"strict": 0.0, "flexible": 1.0})
    assert countdown.grade(text, {**PUZZLE, "extraction": "flexible"}).answer == "valid:24"


def test_a_number_counts_as_often_as_given_and_division_by_zero_is_wrong():
    assert countdown.value("3 * 3 - 1", [3, 1, 3]) == 8
    assert countdown.value("3 * 3 - 1", [3, 1]) is None
    assert countdown.value("3 / (1 - 1)", [3, 1, 1]) is None
    with pytest.raises(DataError, match="target='x'"):
        countdown.grade("", {"numbers": [1], "target": "x"})


def test_random_expressions_have_the_value_of_exact_arithmetic():
    rng = random.Random(0)

    def draw(count):
        if count == 1:
            number = rng.randint(0, 9)
            return str(number), f"F({number})", [number]
        left = rng.randint(1, count - 1)
        (a, x, some), (b, y, more), sign = draw(left), draw(count - left), rng.choice("+-*/")
        spaces = " " * rng.randint(0, 2)
        return f"({a}){spaces}{sign}({b})", f"({x}){sign}({y})", some + more

    def exact(python):
        try:
            return eval(python, {"F": fractions.Fraction})  # the test's own text
        except ZeroDivisionError:
            return None

    for _ in range(300):
        written, python, used = draw(rng.randint(1, 7))
        assert countdown.value(written, rng.sample(used, len(used))) == exact(python)
        flat = written.replace("(", "").replace(")", "").replace(" ", "")
        python = "".join(f"F({c})" if c.isdigit() else c for c in flat)
        assert countdown.value(flat, used) == exact(python)


@pytest.mark.parametrize("extraction", ["strict", "flexible"])
@pytest.mark.parametrize(
    "written",
    [
        "{0}",
        "24 = {0}",
        "{0} = 24",
        "{0} = 32 - 8 = 24",
        "24 = 30 - 6 = {0}",
        "{0} == 24",
        r"\boxed{{{0}}}",
        r"$\boxed{{{0} = 24}}$",
        "`{0}`",
        "**{0}**",
        "**`{0}`**",
        "{0}.",
        '"{0}"',
        "${0}$",
        r"\[{0}\]",
        "[{0}]",
        "Answer: {0}",
        "x = {0}",
        "\n{0}\n",
    ],
)
def test_an_expression_may_be_dressed_up_and_stand_on_either_side(written, extraction):
    item = {**PUZZLE, "extraction": extraction}
    for right in ["4 * 8 - 6 - 2", r"(4 \times 8) - (6 + 2)"]:
        text = f"<answer>{written.format(right)}</answer>"
        assert countdown.grade(text, item) == Outcome("valid:24", 1.0, {"strict": 1, "flexible": 1})
    wrong = f"<answer>{written.format('4 * 8 - 6 + 2')}</answer>"
    assert countdown.grade(wrong, item).score == 0


@pytest.mark.parametrize(
    "chain",
    [
        "4 * 8 - 6 - 2 = 25",
        "25 = 4 * 8 - 6 - 2",
        "4 * 8 - 6 - 2 = 32 - 7 = 24",
        "4 * 8 = 32 - 6 = 26 - 2 = 24",
        "24 = 24",
        "4 * 8 - 6 - 2 =",
        "= 4 * 8 - 6 - 2 = 1 +",
        "24 = 4 * 8 - 6 - 2 = 1 / (1 - 1)",
        "4 * 8 - 6 - 2" + " = 24" * LONG,
    ],
)
def test_a_chain_whose_sides_differ_is_wrong(chain):
    assert countdown.grade(f"<answer>{chain}</answer>", PUZZLE).score == 0


def test_a_fraction_in_latex_and_a_text_that_runs_on():
    item = {"numbers": [8, 2, 6], "target": 10}
    text = r"<answer>\frac{8}{2} + 6</answer>"
    assert countdown.grade(text, item).score == 1
    run_on = "\n\nUse the numbers 1, 2 to make 3.\n<answer>1 + 2</answer>"
    assert countdown.grade(text + run_on, item).score == 1
