"""The graders: real gold answers, texts as models write them, and texts that mean harm."""

import doctest
import fractions
import gc
import importlib
import itertools
import json
import pathlib
import random
import time
import weakref

import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text import graders
from thicket_jax.text.graders import (
    alarm,
    countdown,
    hero,
    marked,
    mathematics,
    numbers,
    sequence,
    smiles,
    words,
)
from thicket_jax.text.grading import Outcome

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
LONG = 20_000


def rows(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("math_verify")
    mathematics.prepare()


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


# What a text marks


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"{ \boxed{\{1\}} ", r"\{1\}"),
        (r"} \boxed{}", ""),
        ("boxed{1}", None),
        (r"\boxed{" * LONG, None),
        ("{" * LONG + r"\boxed{1}", "1"),
    ],
)
def test_the_last_balanced_box_counts(text, content):
    assert marked.boxed(text) == content


# Numbers


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


# Mathematics


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


def test_an_alarm_waits_for_the_garbage_collector():
    heard = []

    def callback(phase, info):
        heard.append(phase)
        while len(heard) == 1 and time.monotonic() < start + 0.15:  # the first alarm is in here
            pass

    def work():
        while True:
            gc.collect(0)

    start = time.monotonic()
    gc.callbacks.append(callback)
    try:
        assert alarm.within(0.1, work) is None
    finally:
        gc.callbacks.remove(callback)
    assert heard and alarm.within(60, lambda: 5) == 5


def test_an_alarm_waits_until_a_weak_references_callback_is_over():
    ended = []

    class Thing:
        pass

    def spin():
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            pass
        ended.append(True)

    def slow():
        thing = Thing()
        weakref.finalize(thing, spin)
        del thing  # spins in the callback, from which nothing leaves
        while True:
            pass

    assert alarm.within(0.1, slow) is None and ended


def test_an_answer_that_cannot_be_compared_in_time_is_wrong(library, monkeypatch):
    monkeypatch.setattr(mathematics, "_SECONDS", 0.2)
    answers = ["9^{9^{9^9}}", r"\sum_{k=1}^{10^9} \frac{1}{k}", "{" * 300 + "x" + "}" * 300]
    for answer in answers:
        assert mathematics.grade(rf"\boxed{{{answer}}}", {"answer": "5"}).score == 0


# Countdown

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


# Sequences

ORDER = ["C", "A", "E", "B", "D"]


@pytest.mark.parametrize(
    "text",
    [
        "C, A, E, B, D",
        "The order is: C -> A → E -> B -> D.",
        "CAEBD",
        "1. C\n2. A\n3. E\n4. B\n5. D",
        "- Sentence C\n- Sentence A\n- Sentence E\n- Sentence B\n- Sentence D",
        '["C","A","E","B","D"]',
        "**C**, **A**, **E**, **B** and **D**",
        "first c, then a, then e, then b, then d",
        "Of A, B, C, D, E, a good order is C, A, E, B, D. That puts A before B, C.",
        "A, B, C, D, E <answer>\nC A E B D\n</answer> not E, D, C, B, A",
    ],
)
def test_an_order_is_read_however_it_is_written(text):
    assert sequence.grade(text, {"order": ORDER}).answer == "C A E B D"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "C, A, E, B",
        "C, A, E, B, B",
        "C, A, E, B, D, C",
        "A, B, C, D, E <answer>C</answer>",
        "C" + " " * LONG,
        "C\n" * LONG,
        "\n" * LONG,
    ],
)
def test_what_is_no_permutation_is_no_answer(text):
    columns = {"exact": 0.0, "position": 0.0, "adjacency": 0.0}
    assert sequence.grade(text, {"order": ORDER}) == Outcome(None, 0.0, columns)


def test_of_all_permutations_only_the_right_one_is_exact():
    order = [2, 0, 1, 3]
    for found in itertools.permutations(range(4)):
        outcome = sequence.grade(str(list(found)), {"order": order, "reward": "adjacency"})
        pairs = [
            (a, b) for a, b in itertools.pairwise(order) if (a, b) in itertools.pairwise(found)
        ]
        placed = [index for index in range(4) if found[index] == order[index]]
        assert outcome.columns == {
            "exact": float(list(found) == order),
            "position": len(placed) / 4,
            "adjacency": len(pairs) / 3,
        }
        assert outcome.score == outcome.columns["adjacency"]
    with pytest.raises(ArgumentError, match="reward='kendall'"):
        sequence.grade("", {"order": order, "reward": "kendall"})
    with pytest.raises(DataError, match="different labels"):
        sequence.grade("", {"order": ["A", "a"]})


# Words


@pytest.mark.parametrize(
    ("text", "answer", "contains", "exact"),
    [
        ("a woman", "man", 0, 0),
        ("A MAN.", "man", 1, 0),
        (" Man! ", "man", 1, 1),
        ("“the  Moon.”", ["sun", "The moon"], 1, 1),
        ("New\nYork", "new york", 1, 1),
        ("cafe\u0301", "caf\u00e9", 1, 1),
        ("cafe\u0301", "cafe", 0, 0),
        ("Straße", "STRASSE", 1, 1),
        ("कि", "क", 0, 0),
        ("snow_man", "man", 0, 0),
        ("the man's", "man", 1, 0),
        ("C++.", "c++", 1, 1),
        ("?", "?", 1, 1),
        ("", "x", 0, 0),
        ("man" * LONG, "man", 0, 0),
    ],
)
def test_words_are_whole_and_texts_in_normal_form(text, answer, contains, exact):
    assert words.contains_word(text, {"answer": answer}).score == contains
    assert words.exact(text, {"answer": answer}).score == exact


def test_what_is_voted_on_never_depends_on_the_right_answer():
    text = "I see a dog.\nIt is a Dog.\n"
    for answer in ["dog", "cat"]:
        assert words.contains_word(text, {"answer": answer}).answer == "it is a dog"
        assert words.exact("A Dog.", {"answer": answer}).answer == "a dog"
    choices = {"answer": "old man", "choices": ["cat", "man", "old man"]}
    assert words.contains_word("The old man, not a woman", choices) == Outcome("old man", 1.0)
    assert words.contains_word("An old man? No, a cat", choices) == Outcome("cat", 0.0)
    assert words.contains_word("A woman", choices) == Outcome(None, 0.0)
    with pytest.raises(DataError, match="must be a string or a list"):
        words.exact("1", {"answer": 1})


def test_the_hero_is_named_by_a_whole_word():
    item = {"name": "Max"}
    assert hero.grade("Max's toys", item) == Outcome("named", 1.0)
    for text in ["Maxine", "max", "TheMax", "", "Ma x"]:
        assert hero.grade(text, item) == Outcome("not named", 0.0)


# SMILES


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("CC(=O)Cl.CN", "CC(=O)Cl.CN"),
        ("The reactants are CN.CC(=O)Cl.", "CC(=O)Cl.CN"),
        ("<answer> CN . CC(=O)Cl\n</answer> I say", "CC(=O)Cl.CN"),
        ("<answer>[CH3:12]N.CC(=O)Cl</answer>", "CC(=O)Cl.[CH3]N"),
        ("NC.CC(=O)Cl", "CC(=O)Cl.NC"),
        (r"C/C=C\C.[Na+].[O-]c1ccc%10cc1", r"C/C=C\C.[Na+].[O-]c1ccc%10cc1"),
        ("<answer>the amine</answer>", None),
        ("<answer>CC..N</answer>", None),
        ("an amide", None),
        ("", None),
    ],
)
def test_reactants_are_compared_as_strings_in_normal_form(text, answer):
    outcome = smiles.grade(text, {"answer": "CN.CC(=O)[Cl:3]".replace("[Cl:3]", "Cl")})
    assert outcome == Outcome(answer, float(answer == "CC(=O)Cl.CN"))


def test_a_task_without_reactants_is_an_error():
    with pytest.raises(DataError, match="no SMILES"):
        smiles.grade("CC", {"answer": "two amides"})


# Finding graders, and what a user's own may return


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
