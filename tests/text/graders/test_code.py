"""Programs as answers: where they are in a text, and what they do."""

import json

import pytest
from shared_data import DATA

from thicket_jax.errors import DataError
from thicket_jax.text.graders.code import behaviour, candidates, grade
from thicket_jax.text.sandbox.sandbox import Check

MBPP = DATA / "mbpp/mbpp.jsonl"
LIMIT, SHORT = 10.0, 0.4  # seconds
pytestmark = pytest.mark.usefixtures("confined")
ITEM = {
    "tests": ["assert double(1) == 2", "assert double(0) == 0", "assert double(-2) == -4"],
    "limits": {"time_limit": LIMIT},
}
RIGHT = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("Sure!\n\n```python\nx = 1\n```\nSo:\n```Python3\nx = 2\n```\nbye", "x = 2"),
        ("```\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\nRun:\n```bash\npython a.py\n```", "x = 1"),
        ("x = 1\n```\nThis works.", "x = 1"),
        ("x = 1\n```\nUse:\n```python\nx = 2\n```", "x = 2"),
        ("1. So:\n   ```python\n   if y:\n       x = 1\n   ```", "if y:\n    x = 1"),
        ("Here:\n```python\nx = 1\n", "x = 1"),
        ("[BEGIN]\nx = 1\n[DONE]\nNext task [BEGIN]\nx = 2\n[DONE]", "x = 1"),
        ("x = 1\n[DONE]\n```python\nx = 2\n```", "x = 1"),
        ("```python\r\nx = 1\r\ny = 2\r\n```", "x = 1\ny = 2"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("x = 1", "x = 1"),
    ],
)
def test_where_the_program_is(text, first):
    assert candidates(text)[0] == first


def test_texts_without_a_program():
    assert candidates("") == candidates(" \n\n") == []
    for text in ("", "I cannot do that.", "Sorry", "42", "```python\ndef f(:\n```", "print('a')"):
        outcome = grade(text, ITEM)
        assert (outcome.answer, outcome.score) == (None, 0.0)
        assert dict(outcome.columns) == {"passed": 0.0, "ran": 0.0}


def test_equal_behaviour_is_one_answer():
    right = grade(f"```python\n{RIGHT}\n```", ITEM)
    assert right.score == 1 and right.columns == {"passed": 1, "ran": 1} and len(right.answer) == 16
    other = "import math\ndouble = lambda number: number + float(number)  # another text"
    assert grade(other, ITEM) == right
    wrong = grade("def double(x): return x * x", ITEM)
    assert wrong.score == 0 and wrong.columns == {"passed": 1 / 3, "ran": 1}
    assert grade("def double(y): return y ** 2", ITEM) == wrong != right
    raising = grade("def double(x): return x / 0", ITEM)
    assert raising.columns == {"passed": 0, "ran": 0} and raising.answer not in (None, wrong.answer)
    assert grade("def double(x): return 1 // 0", ITEM) == raising
    brief = ITEM | {"limits": {"time_limit": SHORT}}
    endless = grade("def double(x):\n    while True: pass", brief)
    assert endless.answer not in (None, raising.answer) and endless.columns["ran"] == 0


def test_an_example_of_use_is_not_the_program():
    text = (
        f"```python\n{RIGHT}\n```\nFor example:\n```python\nresult = double(2)\nprint(result)\n```"
    )
    assert grade(text, ITEM).score == 1
    assert grade("```python\nx = 1\n```\n```python\ny = 2\n```", ITEM).answer is not None


def test_the_answer_is_of_the_visible_tests_and_the_score_of_all():
    item = ITEM | {"visible": 1}
    outcome, lucky = grade(RIGHT, item), grade("def double(x): return 2", item)
    assert outcome.answer == lucky.answer and (outcome.score, lucky.score) == (1, 0)
    assert grade(RIGHT, ITEM).answer != grade("def double(x): return 2", ITEM).answer


def test_setup_code_of_an_item():
    item = {"tests": ["assert f(a) == 3"], "test_setup_code": "a = A(3)", **{"limits": None}}
    text = "class A:\n    def __init__(self, x): self.x = x\ndef f(a): return a.x"
    assert grade(text, item).score == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": []}, r"the item's tests are \[\]"),
        ({"tests": "assert f() == 1"}, "the item's tests are 'assert"),
        ({"tests": [1]}, "must be text"),
        ({"visible": 4}, "visible is 4; give how many of its 3 tests"),
        ({"limits": {"time": 1}}, "limits name 'time'"),
        ({"tests": ["assert f("]}, "is not Python"),
    ],
)
def test_items_that_are_not_as_described(change, message):
    with pytest.raises(DataError, match=message):
        grade(RIGHT, ITEM | change)


def test_the_digest_of_a_behaviour_does_not_change():
    assert behaviour([Check("value", "1", True)]) == "baf9db2434d7d7d5"


@pytest.mark.skipif(not MBPP.exists(), reason="needs the MBPP file")
def test_the_programs_of_mbpp_pass_their_own_tests():
    rows = [json.loads(line) for line in MBPP.read_bytes().decode().split("\n") if line]
    assert len(rows) == 974
    answers = set()
    for row in rows[::16]:
        item = {"tests": row["test_list"], "test_setup_code": row["test_setup_code"]}
        outcome = grade(f"```python\n{row['code']}\n```", item)
        assert outcome.score == 1 and outcome.columns == {"passed": 1, "ran": 1}, row["task_id"]
        answers.add(outcome.answer)
    assert len(answers) > 50


INC = {"tests": ["assert inc(1) == 2", "assert inc(-1) == 0"]}
HELPER = "def one():\n    return 1"
WITH_HELPER = "def inc(x):\n    return x + one()"
PLAIN = "def inc(x):\n    return x + 1"


@pytest.mark.parametrize(
    "text",
    [
        f"````python\n{PLAIN}\n````",
        f"~~~~\n{PLAIN}\n~~~~",
        f"````\n```\n````\n\n```python\n{PLAIN}\n```",
        '```python\ndef inc(x):\n    """\n    ```python\n    >>> inc(1)\n    ```\n    """\n'
        "    return x + 1\n```\nThat is it.",
        f"```python\n{HELPER}\n```\nThen:\n```python\n{WITH_HELPER}\n```",
        f"```python\n{WITH_HELPER}\n```\nIt needs:\n```python\n{HELPER}\n```",
        "```python\nimport operator as o\n```\n```python\ndef two(a): return o.add(a, 1)\n```\n"
        "```python\ndef inc(x):\n    return two(x)\n```",
        f"```python\ndef inc(x):\n    return x\n```\nBetter:\n```python\n{PLAIN}\n```",
        f"```python\n{PLAIN}\n```\nUse:\n```python\nprint(inc(int(input())))\n```",
        f"Here it is:\n\n{PLAIN}\n\nThis adds one.",
        f"Sure! It's easy:\n\n{HELPER}\n\nAnd, with it,\n\n{WITH_HELPER}\n\nDone",
        f"I import nothing.\n{PLAIN}\nfrom the number, one more",
    ],
)
def test_a_program_is_found_in_several_blocks_and_in_prose(text):
    assert grade(text, INC).score == 1
    assert grade(text.replace("1", "3").replace("(1)", "(3)"), INC).score == 0


@pytest.mark.parametrize("text", ["`" * 9999, "```\n" * 3000, "def f(:\n" * 3000, "a b\n" * 9999])
def test_long_texts_of_fences_and_prose_end(text):
    assert len(candidates(text)) <= 6
