"""Sequences: orders as models write them, and their rewards."""

import itertools

import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text.graders import sequence
from thicket_jax.text.grading import Outcome

LONG = 20_000

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
        "1) C 2) A 3) E 4) B 5) D",
        "(1) C, (2) A, (3) E, (4) B, (5) D",
        "1. C 2. A 3. E 4. B 5. D",
        "C ⇒ A ⟶ E ➔ B => D",
        r"$C \to A \rightarrow E \to B \to D$",
        r"\boxed{C, A, E, B, D}",
        "First C, second A, third E, fourth B, and finally D",
        "C followed by A, E, B, D",
        "C A E B D\n\nQuestion: and these?\nA B C D E",
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
