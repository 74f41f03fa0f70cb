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
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.grading import Outcome
from thicket_jax.text.sandbox.sandbox import Check, Result, Sandbox

COLUMNS = ("passed", "ran")

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
_CODE_BEGINS = re.compile(
    r"(?:async )?def \w|class \w|import \w|from [\w.]+ import |@\w|\w+ *=[^=]"
)
_PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`((?:def |lambda |\w+ *= *lambda )[^`\n]+)`(?!`)")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MOST_BLOCKS, _MOST_CLOSINGS = 12, 6  # of a text, and fences tried as one block's end
_MOST_CUTS = 40  # lines of prose that are left out
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
        timed_out=result.status == "timeout",
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
    closed blocks of Python, the last first, each after the blocks whose names its functions use;
    an open last block; what follows `[BEGIN]`; the same up to a fence; the same without the prose
    around it; lines that are set in; code between single backticks. Of a session at Python's prompt
    it is what was typed. Where the fences do not pair and the first names no language, the prompt
    opened one.

    Example:
      >>> candidates("First:\n```python\nx = 1\n```\nBetter:\n```\nx = 2\n```\n")[:2]
      ['x = 2', 'x = 1']
      >>> candidates("x = 1\n```\nThat is all.")[0]
      'x = 1'
    """
    text = text.replace("\r\n", "\n").split("[DONE]")[0]
    blocks, rest = _blocks(text)
    blocks = [_without_prompts(block) for block in blocks]
    blocks = [textwrap.dedent(block).strip("\n") for block in blocks[-_MOST_BLOCKS:]]
    found = list(reversed(_with_helpers(blocks)))
    marked = text.rpartition("[BEGIN]")[2]
    unfenced = marked.split("```")[0]
    others = [rest, marked, unfenced, _without_prose(unfenced), _without_prose(rest)]
    others += [_without_prompts(marked), _indented(unfenced), *_INLINE.findall(marked)[-1:]]
    found += [textwrap.dedent(other).strip("\n") for other in others]
    return [block for block in dict.fromkeys(found) if block.strip()][:_MOST_CANDIDATES]


def _without_prompts(code: str) -> str:
    """A session of Python's prompt as a program: what was typed, without what was answered."""
    if not _PROMPT.search(code) or _tree(textwrap.dedent(code)) is not None:
        return code
    lines = (line.strip() for line in textwrap.dedent(code).split("\n"))
    typed = [line[4:] for line in lines if line[:3] in (">>>", "...")]
    return "\n".join(typed)


def _blocks(text: str) -> tuple[list[str], str]:
    """The closed blocks of Python in a text, and what follows the last fence, which may be open."""
    fences = list(_FENCE.finditer(text))
    blocks, at, rest = [], 0, ""
    if len(fences) % 2 and not fences[0][2]:  # the prompt opened it
        blocks.append(text[: fences[0].start()])
        at, rest = 1, text[fences[0].end() :]
    while at < len(fences):
        closing = _closing(text, fences, at)
        if closing is None:
            return blocks, text[fences[at].end() :].split("```")[0]
        if fences[at][2].lower() in _PYTHON:
            blocks.append(text[fences[at].end() : fences[closing].start()])
        rest = text[fences[closing].end() :]
        at = closing if fences[closing][2] else closing + 1  # one with a language opens the next
    return blocks, rest.split("```")[0]


def _closing(text: str, fences: Sequence[re.Match[str]], at: int) -> int | None:
    """The fence that ends a block: the first one with which it compiles, else the first one.

    A block is ended by a fence of at least as many marks; a docstring may hold some.
    """
    opening = fences[at]
    closings = [i for i in range(at + 1, len(fences)) if fences[i][1].startswith(opening[1])]
    if opening[2].lower() in _PYTHON:
        for closing in closings[:_MOST_CLOSINGS]:
            block = text[opening.end() : fences[closing].start()]
            if _tree(textwrap.dedent(block)) is not None:
                return closing
    return closings[0] if closings else None


def _tree(code: str) -> ast.Module | None:
    """The syntax tree of a program, or None: it is not Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in the program's strings
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _with_helpers(blocks: Sequence[str]) -> list[str]:
    """Each block after the others that bind names which its functions use and it does not bind."""
    trees = [_tree(block) or ast.Module([], []) for block in blocks]
    bound, used = [_bound(tree) for tree in trees], [_used(tree) for tree in trees]
    found = []
    for index, block in enumerate(blocks):
        helpers: list[int] = []
        if any(isinstance(node, _DEFINITIONS) for node in trees[index].body):
            # The nearest one before it first, then those after it; helpers have helpers.
            others = [*reversed(range(index)), *range(index + 1, len(blocks))]
            missing, known = set(used[index]), set(bound[index])
            while binding := [i for i in others if bound[i] & (missing - known)]:
                i = binding[0]
                helpers.append(i)
                missing |= used[i]
                known |= bound[i]
        found.append("\n\n".join([blocks[i] for i in sorted(helpers)] + [block]))
    return found


def _bound(tree: ast.Module) -> set[str]:
    """Names that a program binds at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, _DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            stored = (x for x in ast.walk(node) if isinstance(x, ast.Name))
            names |= {x.id for x in stored if isinstance(x.ctx, ast.Store)}
    return names


def _used(tree: ast.Module) -> set[str]:
    """Names that a program reads anywhere."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def _without_prose(text: str) -> str:
    """A program that stands in prose without fences: prose is lines that are not Python."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if _CODE_BEGINS.match(line)), len(lines))
    lines = lines[first:]
    for _ in range(_MOST_CUTS):
        wrong = _wrong_line("\n".join(lines))
        if wrong is None:
            break
        if lines[wrong][:1].strip() and not _CODE_BEGINS.match(lines[wrong]):
            del lines[wrong]
        else:
            del lines[wrong:]
    return "\n".join(lines)


def _indented(text: str) -> str:
    """The lines of a text that are set in, as Markdown sets code in prose."""
    lines = text.split("\n")
    return "\n".join(line for line in lines if line[:4] in ("    ", "\t") or not line.strip())


def _wrong_line(code: str) -> int | None:
    """The index of the first line that is not Python, or that only names something, as prose."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(code)
    except SyntaxError as error:
        return min(max(error.lineno or 1, 1), code.count("\n") + 1) - 1
    except (ValueError, MemoryError, RecursionError):
        return 0
    for node in tree.body:
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Constant):
            return node.lineno - 1
    return None


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

    It is kept, as starting one takes longer than running a program; it ends with the
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
