"""Numbers: real gold answers, numbers as models write them, and texts that mean harm."""

import fractions
import random

import pytest
from shared_data import rows

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.graders import numbers
from thicket_jax.text.grading import Outcome

LONG = 20_000


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gold_number_of_gsm8k_is_read_and_right(split):
    items = rows(f"gsm8k/{split}.jsonl")
    for item in items:
        gold = item["answer"].rpartition("####")[2].strip().replace(",", "")
        expected = Outcome(gold, 1.0, {"strict": 1.0, "flexible": 1.0})
        assert numbers.grade(item["answer"], item) == expected
        assert numbers.grade(f"The answer is {gold}.00.", item).columns["flexible"] == 1.0


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("72", "72"),
        ("72.", "72"),
        ("12.00", "12"),
        ("$1,234", "1234"),
        ("1,234", "1234"),
        ("1,234,567.50", "1234567.5"),
        ("-3", "-3"),
        ("−3", "-3"),
        ("- 3", "-3"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("US$5", "5"),
        ("€ 5", "5"),
        ("1/2", "0.5"),
        ("1/3", "1/3"),
        ("2 1/2", "2.5"),
        ("50%", "50"),
        ("1.5e3", "1500"),
        ("1e-2", "0.01"),
        (".5", "0.5"),
        ("007", "7"),
        ("-0.0", "0"),
        ("72 apples", "72"),
        ("72, as said", "72"),
        ("5km", "5"),
        ("72\n\nQuestion: how many are 5?", "72"),
        ("1,23", None),
        ("1,234,56", None),
        ("1.2.3", None),
        ("12:30", None),
        ("5-7", None),
        ("2 x 36 = 72", None),
        ("36 + 36", None),
        ("1/0", None),
        ("1e999999999", None),
        ("9" * 5000, None),
        ("**72**", "72"),
        ("it is 72", None),
        ("١٢", None),
        ("", None),
    ],
)
def test_strict_reads_the_number_after_the_mark_and_nothing_else(written, value):
    assert numbers.strict(f"2 + 3 = 5\n#### 1\n#### {written}") == value
    assert numbers.strict(written) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("I have 12.00.", "12"),
        ("The answer is 24 + 48 = 72 clips for 2 months.", "72"),
        ("The answer is not 5, no: the answer is 6. I have 7.", "6"),
        ("Answer: 5\nsince 2 + 2 = 4", "5"),
        ("the answer is: **$1,234.00**", "1234"),
        ("The answer is:\n72", "72"),
        ("the answer is unknown, 5 at most", "5"),
        (r"\boxed{x = \$1{,}234 \text{ in 2 days}} or 7", "2"),
        (r"\boxed{-\frac{1}{2}}, 7", "-0.5"),
        (r"1\frac{1}{2}", "1.5"),
        (r"\boxed{?} then 8", "8"),
        ("10-3", "3"),
        ("it is -3", "-3"),
        ("it is (-3)", "-3"),
        ("the values 1,2,3", "3"),
        ("I think 1,23", "23"),
        ("CO2 and H2O", None),
        ("none", None),
    ],
)
def test_flexible_finds_what_is_most_likely_meant(text, value):
    assert numbers.flexible(text) == value


def test_which_number_is_the_score_is_the_items_choice():
    item = {"answer": "the clips\n#### 1,072"}
    columns = {"strict": 0.0, "flexible": 1.0}
    assert numbers.grade("I get 1072.", item) == Outcome(None, 0.0, columns)
    item["extraction"] = "flexible"
    assert numbers.grade("I get 1072.", item) == Outcome("1072", 1.0, columns)
    with pytest.raises(ArgumentError, match="extraction='lenient'"):
        numbers.grade("1", {"answer": "1", "extraction": "lenient"})
    with pytest.raises(DataError, match="'none' holds no number"):
        numbers.grade("1", {"answer": "none"})


def test_random_numbers_in_any_writing_are_exact():
    rng = random.Random(0)
    for _ in range(300):
        value = fractions.Fraction(rng.randint(-(10**7), 10**7), 10 ** rng.randint(0, 5))
        plain = numbers._canonical(value)
        assert fractions.Fraction(plain) == value and not plain.endswith(".")
        decimals = rng.randint(6, 8)
        written = f"{float(value):,.{decimals}f}" if rng.random() < 0.5 else f"{float(value):.9e}"
        assert numbers.strict(f"#### ${written}.") == plain, written


@pytest.mark.parametrize("text", ["answer is " * LONG, "1," * LONG, "1/" * LONG, "#### " * LONG])
def test_long_texts_of_numbers_end(text):
    numbers.flexible(text)


DRESSES = (
    "**{}**",
    "__{}__",
    "*{}*.",
    "`{}`",
    r"\boxed{{{}}}",
    r"$\boxed{{{}}}$",
    r"\({}\)",
    r"\[{}\]",
    "${}$",
    "$${}$$",
    "({})",
    "[{}]",
    '"{}"',
    "x = {}",
    "$x = {}$",
    "total cost = {}",
    r"\text{{total}} = {}",
    "USD {}",
    "EUR {} in all",
    "Rs. {}",
    "Answer: {}",
    "**Answer:** {}",
    "The final answer is {}.",
    "= {}",
    "+{}",
    "{} apples",
    r"{}\text{{ apples}}",
    "<answer>{}</answer>",
    "{}\n\n#### Explanation: 3 steps",
    "{}\n#### Step 2\nso",
    "{}\n\nQuestion: Ann has 3 pens?\nAnswer: 2*3=6\n#### 6",
    "{}\n\nQ: 3 pens?\nA: #### 6",
    "{}<|im_end|>\n<|im_start|>user\n7 and 8?\n#### 15",
    "{}\n\nA new one.\n\nReason step by step. Then write #### followed by, for example: #### 42",
)


@pytest.mark.parametrize("extraction", ["strict", "flexible"])
@pytest.mark.parametrize("dress", DRESSES)
def test_what_dresses_a_marked_number_up_changes_nothing(dress, extraction):
    for value in ["5", "1,234", "0.25", "17", r"\frac{3}{4}", "1/3", r"\frac12", "½"]:
        item = {"answer": numbers.flexible(value), "extraction": extraction}
        text = f"2 + 3 = 5\n#### {dress.format(value)}"
        assert numbers.grade(text, item).score == 1, text
        assert numbers.grade(text, {**item, "answer": "98"}).score == 0, text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"2.5 \times 10^4", "25000"),
        (r"2.5\times10^{-2}", "0.025"),
        ("2.5 × 10⁴", "25000"),
        ("3 x 10^2", "300"),
        ("10^3", "1000"),
        ("–8", "-8"),
        ("−8", "-8"),
        ("2½", "2.5"),
        (r"-\frac{1}{4}", "-0.25"),
        ("2^{10}", None),
        ("3**2", None),
        ("(2 + 3) * 4", None),
        ("(5) - 3", None),
        (r"5 \times 3", None),
        (r"5\sqrt{2}", None),
        ("5π", None),
        ("5–7", None),
        ("5 to 7", None),
        ("3 or 4", None),
        ("x = 3 or x = 4", None),
        ("3 and 4", None),
        ("(3, 4)", None),
        ("3; 4", None),
        ("$3 or maybe $4", None),
    ],
)
def test_a_marked_number_may_be_a_power_of_ten_and_is_one_alone(written, value):
    assert numbers.strict(f"#### {written}") == value


def test_what_is_denied_or_twofold_is_no_answer():
    for text in ["The answer isn't 5", "It is not 5.", "the answer is not $5$", "It can't be 5"]:
        assert numbers.flexible(text) is None
    for text in ["#### 3 or 4", "The answer is 3 or 4.", r"\boxed{3 \text{ or } 4}"]:
        for answer in ["3", "4"]:
            item = {"answer": answer, "extraction": "flexible"}
            assert numbers.grade(text, item).columns == {"strict": 0, "flexible": 0}, text
    assert numbers.flexible("It is not 5 but 6.") == "6"
