"""Words: whole ones, in normal form; the hero of a story."""

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text.graders import hero, words
from thicket_jax.text.grading import Outcome

LONG = 20_000


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
