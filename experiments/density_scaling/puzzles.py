"""Nine small text tasks in one alphabet, drawn from a seed.

A line is a task's letter, a question, `=`, an answer and a full stop: `Rabcd=dcba.`
"""

import hashlib
import random
from collections.abc import Callable
from typing import Literal

from thicket_jax.errors import ArgumentError, DataError

LETTERS = "abcdefgh"
WIDTH = 19  # tokens of a line at most
_PATIENCE = 100_000  # draws without a new line after which there are no more

Part = Literal["train", "test"]
Draw = random.Random


def _word(draw: Draw, low: int, high: int) -> str:
    return "".join(draw.choice(LETTERS) for _ in range(draw.randint(low, high)))


def _copy(draw: Draw) -> tuple[str, str]:
    word = _word(draw, 4, 8)
    return word, word


def _reverse(draw: Draw) -> tuple[str, str]:
    word = _word(draw, 4, 8)
    return word, word[::-1]


def _sort(draw: Draw) -> tuple[str, str]:
    word = _word(draw, 4, 8)
    return word, "".join(sorted(word))


def _add(draw: Draw) -> tuple[str, str]:
    a, b = draw.randint(10, 99), draw.randint(10, 99)
    return f"{a}+{b}", str(a + b)


def _modulo(draw: Draw) -> tuple[str, str]:
    a, b, c = draw.randint(10, 99), draw.randint(2, 9), draw.randint(0, 9)
    return f"{a}*{b}+{c}", str((a * b + c) % 7)


def _count(draw: Draw) -> tuple[str, str]:
    wanted, word = draw.choice(LETTERS[:3]), "".join(draw.choice(LETTERS[:3]) for _ in range(10))
    return f"{wanted},{word}", str(word.count(wanted))


def _compare(draw: Draw) -> tuple[str, str]:
    a, b = draw.randint(100, 999), draw.randint(100, 999)
    if draw.random() < 0.5:  # alike in the first digits, so that the last ones matter
        b = a // 10 * 10 + draw.randint(0, 9)
    return f"{a},{b}", "<" if a < b else ">" if a > b else "-"


def _largest(draw: Draw) -> tuple[str, str]:
    numbers = [draw.randint(10, 99) for _ in range(4)]
    return ",".join(map(str, numbers)), str(max(numbers))


def _brackets(draw: Draw) -> tuple[str, str]:
    """Balanced or not, one as often as the other; what is not differs in one bracket."""
    text, opened = "", []
    pairs = {"(": ")", "[": "]"}
    length = draw.choice((6, 8, 10))
    while len(text) < length:
        if opened and (len(opened) >= length - len(text) or draw.random() < 0.5):
            text += pairs[opened.pop()]
        else:
            opened.append(draw.choice("(["))
            text += opened[-1]
    if draw.random() < 0.5:
        return text, "y"
    place = draw.randrange(length)
    other = draw.choice([x for x in "()[]" if x != text[place]])
    return text[:place] + other + text[place + 1 :], "n"


TASKS: dict[str, tuple[str, Callable[[Draw], tuple[str, str]]]] = {
    "copy": ("C", _copy),
    "reverse": ("R", _reverse),
    "sort": ("S", _sort),
    "add": ("A", _add),
    "modulo": ("M", _modulo),
    "count": ("K", _count),
    "compare": ("L", _compare),
    "largest": ("X", _largest),
    "brackets": ("B", _brackets),
}
"""name → (letter, what draws a question and its answer)."""


def lines(task: str, num: int, seed: int, part: Part) -> list[str]:
    """Draws different lines of one task, all of one part.

    Which part a line is in is decided by a hash of it (one in eight is for testing), so training
    and test lines never meet, whatever seed they were drawn with.

    Args:
      task: a name in `TASKS`.
      num: how many; the first lines of a longer list are those of a shorter one.
      seed: a whole number.
      part: "train" or "test".

    Raises:
      ArgumentError: an unknown task, or fewer than one line.
      DataError: there are not so many different lines.

    Example:
      >>> lines("reverse", 2, 0, "test")
      ['Rcefbe=ebfec.', 'Rdfah=hafd.']
    """
    if task not in TASKS or num < 1:
        raise ArgumentError(
            f"task={task!r} must be one of {', '.join(TASKS)}, num={num} at least 1"
        )
    letter, make = TASKS[task]
    draw = random.Random(f"{task} {part} {seed}")
    found: dict[str, None] = {}
    idle = 0
    while len(found) < num:
        question, answer = make(draw)
        line = f"{letter}{question}={answer}."
        idle += 1
        if line not in found and part_of(line) == part:
            found[line], idle = None, 0
        if idle > _PATIENCE:
            raise DataError(
                f"there are {len(found)} different lines of {task} in {part}, not {num}"
            )
    return list(found)


def part_of(line: str) -> Part:
    """Returns the part that a line belongs to, by a hash of it."""
    return "test" if hashlib.sha256(line.encode()).digest()[0] % 8 == 0 else "train"


def mixture(num: int, seed: int) -> list[str]:
    """Draws `num` training lines, of each task in turn; lines may come again.

    Tasks of few different lines (addition has 8,100) would otherwise run out.
    """
    draws = {task: random.Random(f"{task} mixture {seed}") for task in TASKS}
    found: list[str] = []
    names = list(TASKS)
    while len(found) < num:
        task = names[len(found) % len(names)]
        letter, make = TASKS[task]
        question, answer = make(draws[task])
        line = f"{letter}{question}={answer}."
        if part_of(line) == "train":
            found.append(line)
    return found
