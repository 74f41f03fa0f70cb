"""Where an answer ends: end tokens, stop strings in the decoded text, tokens that hold one."""

import numpy as np
import pytest
from language_models import STORIES, make_checkpoint

from thicket_jax.text.endings import stop_place, texts
from thicket_jax.text.prompts import open_tokenizer

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def stories():
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there")
    return open_tokenizer(STORIES)


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory):
    """A tokenizer of bytes, so that a letter can be several tokens."""
    return open_tokenizer(make_checkpoint(tmp_path_factory.mktemp("bytes"), says="0"))


class Counting:
    """Decodes ids as their numbers, and counts the rows."""

    def __init__(self):
        self.rows = 0

    def decode_many(self, rows):
        self.rows += len(rows)
        return [" ".join(map(str, row)) for row in rows]


def test_texts_end_at_the_first_end_token_and_are_decoded_once():
    tokens = np.array([[[4, 2, 9, 9], [4, 5, 6, 7]], [[4, 3, 2, 2], [2, 8, 8, 8]]], np.int32)
    counting = Counting()
    found, lengths = texts(counting, tokens, (2, 3))
    assert found.dtype == object and found.tolist() == [["4", "4 5 6 7"], ["4", ""]]
    assert lengths.dtype == np.int32 and lengths.tolist() == [[2, 4], [2, 1]]
    assert counting.rows == 3
    found, lengths = texts(counting, tokens, ())
    assert found[1, 1] == "2 8 8 8" and (lengths == 4).all()


def test_texts_against_one_row_at_a_time(stories):
    draw = np.random.default_rng(0)
    tokens = np.repeat(draw.integers(0, 40, (3, 20, 12)), 2, axis=0)
    found, lengths = texts(stories, tokens, (2, 7))
    for expert, item in np.ndindex(6, 20):
        row = tokens[expert, item].tolist()
        end = min([index for index, token in enumerate(row) if token in (2, 7)], default=None)
        assert found[expert, item] == stories.decode(row[:end])
        assert lengths[expert, item] == (12 if end is None else end + 1)
    assert isinstance(found[0, 0], str)


def test_the_stop_string_that_is_complete_first_counts():
    assert stop_place("a stop b", ["stop"]) == (2, 6)
    assert stop_place("a stop b", []) is stop_place("a b", ["stop"]) is None
    assert stop_place("stop and stop", ["stop"]) == (0, 4)
    # Not the one that begins first: what comes later must not change an answer.
    assert stop_place("xabcd", ["abcd", "bc"]) == (2, 4)
    assert stop_place("x\n\nQ:", ["\nQ:", "\n\n"]) == (1, 3)
    assert stop_place("xab", ["b", "ab"]) == (1, 3)


def by_the_letter(tokenizer, row, eos_ids, stops):
    """Text and length of one row, token by token, as a program that streams would find them."""
    ends = [index for index, token in enumerate(row) if token in eos_ids]
    kept = row[: ends[0]] if ends else row
    for length in range(1, len(kept) + 1):
        text = tokenizer.decode(kept[:length])
        place = stop_place(text, stops)
        if place is not None:
            return text[: place[0]], length
    return tokenizer.decode(kept), min(len(kept) + 1, len(row))


STOPS = [("e",), (" ", "the"), ("é",), ("\n", "a b"), ("er", "here", "ere and"), ("\n\n", "\nQ:")]


@pytest.mark.parametrize("name", ["stories", "bytewise"])
@pytest.mark.parametrize("stops", STOPS)
def test_stop_strings_are_found_whatever_the_tokens_are(name, stops, request):
    tokenizer = request.getfixturevalue(name)
    eos = tokenizer.eos_ids
    draw = np.random.default_rng(0)
    said = ["Max was there. He ate and ate", "Once\n\nQ: a b café e", "é", " the", "b\nQ: there"]
    rows = [tokenizer.encode(text) for text in said]
    rows += draw.integers(3, tokenizer.size, (12, 9)).tolist()
    width = 1 + max(map(len, rows))
    tokens = np.array([[*row, *eos] + [4] * (width - 1 - len(row)) for row in rows], np.int32)
    found, lengths = texts(tokenizer, tokens[None], eos, stops)
    wanted = [by_the_letter(tokenizer, row.tolist(), eos, stops) for row in tokens]
    assert list(zip(found[0].tolist(), lengths[0].tolist(), strict=True)) == wanted
    plain, longer = texts(tokenizer, tokens[None], eos)
    assert all(a.startswith(b) for a, b in zip(plain[0], found[0], strict=True))
    assert (found != plain).any() and (lengths <= longer).all()

    # A row that ends where a token holds a stop string has the same text, whatever follows it.
    stopping = tokenizer.containing(stops, 1000)
    for row in tokens:
        inside = np.flatnonzero(np.isin(row, stopping))
        row[inside[0] + 1 if len(inside) else width :] = eos[0]
    ended, sooner = texts(tokenizer, tokens[None], eos, stops)
    assert (ended == found).all() and (sooner == lengths).all()


def test_tokens_that_hold_a_stop_string_are_those_with_its_text(stories, bytewise):
    for stop in ("the", "e", "é", " a", "\n"):
        found = stories.containing([stop], 1000)
        assert [stop in stories.decode([token]) for token in found] == [True] * len(found)
        assert found == tuple(sorted(found)) and stories.containing([stop], 2) == found[:2]
    every = {t for t in range(stories.size) if "the" in stories.decode([t])}
    assert every and set(stories.containing(["the"], 1000)) == every
    assert len(bytewise.containing(["7", "8"], 9)) == 2
    assert bytewise.containing(["78", "é"], 9) == bytewise.containing([], 9) == ()
