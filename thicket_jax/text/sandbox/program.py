"""What the sandbox's child does with a program: run it, then its checks, and send a record of each.

Whatever the program raises, also SystemExit and KeyboardInterrupt, is a record and not an end. The
values of checks are described here, where a program can meddle; `sandbox` says what that means.
"""

import dis
from collections.abc import Callable, Mapping
from typing import Any

_BINDS = {"STORE_NAME", "STORE_GLOBAL"}
_MOST_NAMES = 200
_NOT_PYTHON = (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError)

Record = tuple[str, str, bool | None]
"""Kind, text and verdict of a check; the verdict is None where the caller compares the text."""


def execute(
    request: Mapping[str, Any],
    namespace: dict[str, Any],
    describe: Callable[[object], tuple[str, bool]],
    send: Callable[..., None],
) -> None:
    """Runs a program, then its setup, then each check, in one namespace.

    Args:
      request: `code`, `setup` and `checks`, each check (kind, left, right).
      namespace: of the program's module.
      describe: a value's text, and whether it is plain.
      send: takes the parts of one record.
    """
    try:
        program = compile(request["code"], "<program>", "exec", dont_inherit=True)
    except _NOT_PYTHON:
        return send("syntax")
    names = {item.argval for item in dis.get_instructions(program) if item.opname in _BINDS}
    send("names", sorted(name[:100] for name in names)[:_MOST_NAMES])
    try:
        exec(program, namespace)
        exec(compile(request["setup"], "<setup>", "exec", dont_inherit=True), namespace)
    except BaseException as error:
        return send("raised", _name(error))
    for kind, left, right in request["checks"]:
        try:
            record = _check(kind, left, right, namespace, describe)
        except BaseException as error:
            record = ("raises", _name(error), False)
        send("check", *record)


def _check(kind, left, right, namespace, describe) -> Record:
    """Carries one check out; what the program raises passes through."""
    if kind == "run":
        try:
            exec(compile(left, "<check>", "exec", dont_inherit=True), namespace)
        except AssertionError:
            return "truth", "False", False
        return "truth", "True", True
    value = eval(compile(left, "<check>", "eval", dont_inherit=True), namespace)
    if kind == "truth":
        passed = bool(value)
        return "truth", str(passed), passed
    text, plain = describe(value)
    if right is None:
        return "value", text, None
    expected = eval(compile(right, "<check>", "eval", dont_inherit=True), namespace)
    expected_text, expected_plain = describe(expected)
    # An `__eq__` of the program's own cannot make two plain values equal.
    differ = plain and expected_plain and text != expected_text
    return "value", text, not differ and bool(value == expected)


def _name(error: BaseException) -> str:
    return type.__getattribute__(type(error), "__name__")[:100]
