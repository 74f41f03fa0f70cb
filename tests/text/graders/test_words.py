"""Words: whole ones, in normal form; the hero of a story."""

import itertools

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


LETTERS = {"choices": ["A", "B", "C", "D"]}
YES_NO = {"choices": ["yes", "no"]}
PLACES = {"choices": ["Paris", "London", "New York"]}


@pytest.mark.parametrize(
    ("text", "answer", "item"),
    [
        ("The correct answer is (D), because A and B are wrong.", "d", LETTERS),
        ("The answer is **B**. C is wrong.", "b", LETTERS),
        ("Answer: A\nB would mean more.", "a", LETTERS),
        ("A", "a", LETTERS),
        ("(a)", "a", LETTERS),
        ("b", "b", LETTERS),
        ("answer: c", "c", LETTERS),
        ("A whale is a mammal, so C.", "c", LETTERS),
        ("The answer is C, since a bird is not a fish and I know it", "c", LETTERS),
        ("A is correct.", "a", LETTERS),
        ("It is neither A nor B, so D", "d", LETTERS),
        ("It is D, neither A nor B", "d", LETTERS),
        ("A, B and D are incorrect, so it is C", "c", LETTERS),
        ("C. A, B and D are incorrect", "c", LETTERS),
        ("B is not the right answer, D is", "d", LETTERS),
        ("The answer isn't A but C", "c", LETTERS),
        ("I choose C rather than D", "c", LETTERS),
        ("C, not D", "c", LETTERS),
        (r"\boxed{B} and not A", "b", LETTERS),
        ("<answer>B</answer> C came close", "b", LETTERS),
        ("A whale is a mammal", None, LETTERS),
        ("It is not B", None, LETTERS),
        ("Yes, no doubt", "yes", YES_NO),
        ("No, as yes would be odd", "no", YES_NO),
        ("Yes. There is no other way.", "yes", YES_NO),
        ("I would say yes", "yes", YES_NO),
        ("London, Paris or New York? Paris", "paris", PLACES),
        ("It is Paris instead of London", "paris", PLACES),
        ("New York", "new york", PLACES),
        ("not only Paris", "paris", PLACES),
        ("The answer is B\n\nQuestion: and this one?\nThe answer is D", "b", LETTERS),
    ],
)
def test_a_choice_is_the_one_that_is_meant_not_one_that_is_mentioned(text, answer, item):
    for right in item["choices"]:
        outcome = words.contains_word(text, {**item, "answer": right})
        assert outcome == Outcome(answer, float(right.casefold() == answer)), text


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It is not Rome", 0),
        ("It isn't in Rome.", 0),
        ("It cannot be Rome", 0),
        ("I don't think it is Rome", 0),
        ("Rome is wrong", 0),
        ("Anything but not Rome, other than Rome", 0),
        ("It is not Paris but Rome", 1),
        ("Not Paris. Rome!", 1),
        ("I do not know: Rome?", 1),
        ("not only Rome", 1),
        ("Rome is not small", 1),
        ("It is not Rome; no, wait, it is Rome", 1),
    ],
)
def test_what_is_denied_is_not_named(text, score):
    assert words.contains_word(text, {"answer": "Rome"}).score == score


def test_the_order_of_choices_changes_nothing():
    for text in ["B, not a cat: A is wrong", "A man, I think C", "D or C"]:
        answers = {
            words.contains_word(text, {"answer": "A", "choices": list(order)}).answer
            for order in itertools.permutations("ABCD")
        }
        assert len(answers) == 1
