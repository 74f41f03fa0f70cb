"""Programs: run on an item's tests in a sandbox; the answer is what they do, not their text.

An item has `tests` (statements of Python, usually `assert f(x) == y`) and may have
`test_setup_code` (run between the program and the tests), `visible` (how many of the tests, the
first ones, the model was shown; default all) and `limits` (any of `time_limit` in seconds,
`memory_bytes`, `output_bytes` for one program).
"""

import ast
import functools
import hashlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.grading import Outcome
from thicket_jax.text.sandbox.sandbox import Check, Result, Sandbox

COLUMNS = ("passed", "ran")

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = {"", "python", "python3", "py", "py3"}
_MOST_CANDIDATES = 6
_LIMITS = {"time_limit", "memory_bytes", "output_bytes"}


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the program in a text by the item's tests.

    The program is the first of the text's `candidates` that compiles and binds a name that the
    tests use, or else the first that compiles. Its answer is its `behaviour` on the visible tests.
    A text without a program abstains: nothing compiles, or what does binds no name. A program that
    fails or is stopped on every test has an answer: programs that fail alike are alike.

    Args:
      text: what the model generated after the prompt.
      item: see above.

    Returns:
      score 1 if every test passes, else 0; columns "passed", the share of the tests that pass, and
      "ran", 1 if the program and its tests ran to the end without an exception.

    Raises:
      DataError: the item's fields are not as above.
      SandboxError: programs cannot be confined on this machine.
    """
    tests, setup, visible = _fields(item)
    result = _run(text, tests, setup, item.get("limits") or {})
    if result is None or not result.names:
        return Outcome(None, 0.0, {"passed": 0.0, "ran": 0.0})
    passed = [check.passed for check in result.checks]
    ran = result.status == "ended" and all(check.kind != "raises" for check in result.checks)
    return Outcome(
        behaviour(result.checks[:visible]),
        float(all(passed)),
        {"passed": sum(passed) / len(passed), "ran": float(ran)},
    )


def prepare() -> None:
    """Starts this worker's sandbox: a machine that has none is told before the first text."""
    _sandbox().start()


def behaviour(checks: Sequence[Check]) -> str:
    """Names the class of programs that do the same on these checks, in 16 hexadecimal digits.

    Two programs do the same if every check has in both the same value (see
    `values.describe`), exception type or passed limit, and the same verdict.
    """
    done = [[check.kind, check.text, check.passed] for check in checks]
    return hashlib.sha256(json.dumps(done).encode()).hexdigest()[:16]


def candidates(text: str) -> list[str]:
    r"""Finds what may be the program in a text, at most 6, the likeliest first.

    What follows `[DONE]`, which ends a program in the paper of MBPP, is ignored. In turn: the
    closed blocks of Python, the last first; an open last block; what follows `[BEGIN]`; the same up
    to a fence. Where the fences do not pair and the first names no language, the prompt opened one.

    Example:
      >>> candidates("First:\n```python\nx = 1\n```\nBetter:\n```\nx = 2\n```\n")[:2]
      ['x = 2', 'x = 1']
      >>> candidates("x = 1\n```\nThat is all.")[0]
      'x = 1'
    """
    text = text.replace("\r\n", "\n").split("[DONE]")[0]
    # Text, language, text, language, text: the parts alternate with the fences between them.
    parts = _FENCE.split(text)
    texts, languages = parts[::2], ["", *parts[1::2]]
    fences = len(texts) - 1
    first = 0 if fences % 2 and not languages[1] else 1
    blocks = [texts[i] for i in range(first, fences, 2) if languages[i].lower() in _PYTHON]
    marked = text.rpartition("[BEGIN]")[2]
    others = [texts[-1].split("```")[0]] if fences else []
    others += [marked, marked.split("```")[0]]
    found = [textwrap.dedent(block).strip("\n") for block in [*reversed(blocks), *others]]
    return [block for block in dict.fromkeys(found) if block.strip()][:_MOST_CANDIDATES]


def _run(text: str, tests: tuple[str, ...], setup: str, limits: Mapping[str, Any]) -> Result | None:
    """The run of the text's program; None where nothing compiles."""
    sandbox, second = _sandbox(**limits), None
    for code in candidates(text):
        result = sandbox.run(code, tests, setup=setup)
        if not _names(tests).isdisjoint(result.names):
            return result
        if result.status != "syntax":
            second = second or result
        if result.status == "timeout":
            break  # a text costs one time limit, not one for each candidate
    return second


@functools.lru_cache(maxsize=1)
def _sandbox(**limits: Any) -> Sandbox:
    """This worker's sandbox, started by its first program.

    It is kept, as starting one takes a hundred times as long as running a program; it ends with the
    worker, whose end closes its input.
    """
    return Sandbox(**limits)


@functools.lru_cache(maxsize=4096)
def _names(tests: tuple[str, ...]) -> frozenset[str]:
    """Every name that the tests use."""
    nodes = [node for test in tests for node in ast.walk(ast.parse(test.strip()))]
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def _fields(item: Mapping[str, Any]) -> tuple[tuple[str, ...], str, int]:
    """The item's tests, setup and number of visible tests, each of its type."""
    tests, setup = item.get("tests"), item.get("test_setup_code") or ""
    if not isinstance(tests, (list, tuple)) or not tests:
        raise DataError(f"the item's tests are {tests!r:.80}; give a list of statements of Python")
    if not all(isinstance(part, str) for part in (*tests, setup)):
        raise DataError("the item's tests and test_setup_code must be text")
    visible = item.get("visible", len(tests))
    if not isinstance(visible, int) or not 1 <= visible <= len(tests):
        raise DataError(
            f"the item's visible is {visible!r:.80}; give how many of its {len(tests)} tests "
            "the model is shown"
        )
    unknown = set(item.get("limits") or {}) - _LIMITS
    if unknown:
        raise DataError(f"the item's limits name {min(unknown)!r}; known are {sorted(_LIMITS)}")
    return tuple(tests), setup, visible
