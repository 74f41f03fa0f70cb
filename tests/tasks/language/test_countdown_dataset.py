"""Countdown puzzles: solvable, different, disjoint, the same from a seed; prepared, read back."""

import ast
import collections
import fractions
import operator
import re

import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks.language import countdown_dataset
from thicket_jax.tasks.language.countdown_dataset import open_puzzles, part_of, puzzles

OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(node):
    """An arithmetic expression in exact fractions, and every value on the way."""
    if isinstance(node, ast.Constant):
        return fractions.Fraction(node.value), []
    (left, before), (right, after) = value(node.left), value(node.right)
    found = OPERATIONS[type(node.op)](left, right)
    return found, [*before, *after, found]


def identity(puzzle):
    return tuple(sorted(puzzle["numbers"])), puzzle["target"]


def message(kind, function, *args, **kwargs):
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


@pytest.fixture(scope="module")
def many():
    return puzzles(2000, 7)


def test_every_puzzle_is_solved_by_its_solution(many):
    for puzzle in many:
        assert re.fullmatch(r"[0-9()+*/ -]+", puzzle["solution"])
        found, steps = value(ast.parse(puzzle["solution"], mode="eval").body)
        assert found == puzzle["target"]
        assert all(step.denominator == 1 and step > 0 for step in steps)
        used = [int(number) for number in re.findall("[0-9]+", puzzle["solution"])]
        assert sorted(used) == sorted(puzzle["numbers"])


def test_puzzles_are_as_described(many):
    assert len(set(map(identity, many))) == len(many)
    numbers = np.concatenate([puzzle["numbers"] for puzzle in many])
    assert numbers.min() == 1 and numbers.max() == 99
    targets = [puzzle["target"] for puzzle in many]
    assert 10 <= min(targets) <= 12 and 900 < max(targets) <= 999
    sizes = collections.Counter(len(puzzle["numbers"]) for puzzle in many)
    assert set(sizes) == {3, 4} and min(sizes.values()) > 0.3 * len(many)
    signs = collections.Counter(
        "".join(re.findall("[-+*/]", " ".join(p["solution"] for p in many)))
    )
    assert set(signs) == set("+-*/") and min(signs.values()) > 50
    # The numbers are not in the order in which the solution uses them.
    order = [re.findall("[0-9]+", puzzle["solution"]) for puzzle in many]
    assert sum(list(map(str, p["numbers"])) == o for p, o in zip(many, order, strict=True)) < 400


def test_a_seed_gives_the_same_puzzles_and_more_of_them():
    few = puzzles(50, 3)
    assert puzzles(80, 3)[:50] == few
    assert few[0] == {"numbers": [76, 70, 17], "target": 129, "solution": "76 + (70 - 17)"}
    assert puzzles(50, 4) != few
    assert puzzles(50, -3) != few
    assert {len(puzzle["numbers"]) for puzzle in puzzles(50, 3, sizes=(4,))} == {4}


def test_parts_never_meet_whatever_the_seed():
    train = puzzles(1500, 0, "train", sizes=(3,))
    test = puzzles(1500, 1, "test", sizes=(3,))
    assert not set(map(identity, train)) & set(map(identity, test))
    assert {part_of(puzzle) for puzzle in train} == {"train"}
    both = puzzles(200, 0, sizes=(3,))
    first = [puzzle for puzzle in both if part_of(puzzle) == "train"]
    assert first == train[: len(first)]
    assert 70 < len(first) < 130


def test_the_order_of_the_numbers_does_not_make_another_puzzle():
    one = {"numbers": [3, 5, 9], "target": 17}
    assert part_of(one) == part_of(one | {"numbers": [9, 3, 5]})


def test_arguments_that_cannot_work(monkeypatch):
    assert "num=0 must be at least 1" in message(ArgumentError, puzzles, 0, 0)
    assert "sizes=(1, 3) at least 2" in message(ArgumentError, puzzles, 1, 0, sizes=(1, 3))
    monkeypatch.setattr(countdown_dataset, "LARGEST", 3)
    monkeypatch.setattr(countdown_dataset, "_PATIENCE", 2000)
    text = message(DataError, puzzles, 100, 0, sizes=(3,))
    assert re.fullmatch("100 countdown puzzles were asked for, and [0-9]+ were found", text)


def test_prepared_once_and_read_again(tmp_path, monkeypatch, capfd):
    train, test = open_puzzles(tmp_path, 5, 8, seed=2)
    assert train == puzzles(5, 2, "train") and test == puzzles(8, 2, "test")
    assert all(type(n) is int for n in [*train[0]["numbers"], train[0]["target"]])
    monkeypatch.setattr(countdown_dataset, "puzzles", None)  # nothing is drawn again
    again = open_puzzles(tmp_path, 900, 3, seed=2)
    assert again[0][:5] == train and len(again[0]) == 900 and again[1] == test[:3]
    assert capfd.readouterr() == ("", "")


def test_a_larger_set_begins_with_the_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(countdown_dataset, "_SMALLEST_SET", 4)
    small = open_puzzles(tmp_path, 4, 2, seed=0)
    large = open_puzzles(tmp_path, 4, 9, seed=0)
    assert large[0] == small[0] and large[1][:2] == small[1]
    assert len(list((tmp_path / "countdown").iterdir())) == 2


def test_what_was_prepared_and_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(countdown_dataset, "_SMALLEST_SET", 4)
    open_puzzles(tmp_path, 1, 1, seed=0)
    (folder,) = tmp_path.glob("countdown/*/*")
    for shard in folder.glob("*train*array_record*"):
        shard.write_bytes(shard.read_bytes()[:20])
    text = message(DataError, open_puzzles, tmp_path, 1, 1, seed=0)
    assert str(folder) in text and "delete that folder and run again" in text
    (folder / "dataset_info.json").unlink()
    text = message(DataError, open_puzzles, tmp_path, 1, 1, seed=0)
    assert str(folder) in text and "delete that folder" in text


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    text = message(DataError, open_puzzles, tmp_path / "file", 1, 1, seed=0)
    assert "cannot be prepared in" in text and "--cache" in text
    assert "train=0 and test=1 puzzles" in message(ArgumentError, open_puzzles, tmp_path, 0, 1, 0)
