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
        ("**72**", None),
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
