"""Errors are one line, and say what was found and what to do."""

import numpy as np
import pytest

from thicket_jax import errors
from thicket_jax.errors import ArgumentError, ThicketError, check_choice, check_count, check_word


def test_every_error_of_the_package_is_a_thicket_error():
    raised = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception)]
    assert len(raised) > 5 and all(issubclass(x, ThicketError) for x in raised)


@pytest.mark.parametrize("known", [("a", "b"), ["a", "b"], {"a": 1, "b": 2}, iter("ab")])
def test_a_choice_that_is_unknown_is_refused_with_those_that_are_known(known):
    with pytest.raises(ArgumentError) as caught:
        check_choice("rule", "c", known)
    assert str(caught.value) == "rule='c' is unknown; choose one of: a, b"


@pytest.mark.parametrize("found", [None, 3, "", "A", np.float32])
def test_a_choice_of_another_kind_is_unknown(found):
    with pytest.raises(ArgumentError, match="is unknown; choose one of: a$"):
        check_choice("rule", found, ("a",))


def test_a_word_that_is_unknown_is_refused_with_those_that_are_known():
    with pytest.raises(ArgumentError) as caught:
        check_word("task", "sinals", {"signals": 1, "digits": 2})
    assert str(caught.value) == "unknown task 'sinals'; choose one of: signals, digits"


def test_what_is_known_passes():
    check_choice("rule", "a", iter("ab"))
    check_word("task", "digits", {"signals": 1, "digits": 2})
    assert [check_count("num", n) for n in (1, np.int64(7))] == [1, 7]


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, np.float32(2), [1]])
def test_a_count_is_a_whole_number_of_at_least_one(value):
    with pytest.raises(ArgumentError, match="num=.* must be a whole number of at least 1"):
        check_count("num", value)
