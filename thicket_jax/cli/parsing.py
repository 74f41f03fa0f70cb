"""How words become options: one line for what cannot."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import ArgumentError

_TEXTS = tuple[str, ...]  # an option of this type may be given several times
_SHORT = {"majority": "majority_vote", "weighted": "weighted_vote"}


def combine_names(text: str | None) -> list[str] | None:
    """Reads --vote: names of combine rules, or shorter ones for votes; None is the run's own."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    names = [_SHORT.get(word, word) for word in words]
    for name in names:
        if not name:
            raise ArgumentError(
                f"--vote {text!r} must be names of rules, several with commas; use majority, "
                "weighted, mean, ..."
            )
        if names.count(name) > 1:
            raise ArgumentError(f"--vote {text!r} names {name} twice")
    return names


def given(words: Sequence[str], repeated: Collection[str] | None = None) -> dict[str, str]:
    """Returns the options among the words, called as fields are, and as they were typed.

    A flag and its opposite, --chat and --no-chat, are one option.

    Args:
      words: as they were typed.
      repeated: options that may be there several times; None: any, as where words are read again.

    Raises:
      ArgumentError: an option is there twice, or is given nothing.
    """
    found: dict[str, str] = {}
    for i, word in enumerate(words):
        if not word.startswith("--"):
            continue
        typed, equals, value = word.partition("=")
        task, dot, name = typed[2:].replace("-", "_").rpartition(".")
        name = task + dot + name.removeprefix("no_")
        several = repeated is None or name.rpartition(".")[2] in repeated
        if name in found and not several:
            raise ArgumentError(f"{typed} is given twice; give it once")
        found[name] = typed
        if not equals:
            value = words[i + 1] if i + 1 < len(words) else "unknown"
        if not (value if several else value.strip()):
            raise ArgumentError(f"{typed} is empty; give it a value, or leave it out")
    return found


def check_read(words: Sequence[str], unread: Mapping[str, str]) -> None:
    """Raises `ArgumentError` where an option is given that nothing reads beside the others.

    Args:
      words: the options as they were typed.
      unread: field → why nothing reads it, as the rest of a sentence.
    """
    for name, typed in given(words).items():
        if name in unread:
            raise ArgumentError(f"{typed} {unread[name]}; leave it out")


def repeated(kind: Any) -> set[str]:
    """Returns the options of a record, and of those inside it, that may be given several times."""
    kind = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    found: set[str] = set()
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= repeated(hint)
        elif hint == _TEXTS:
            found.add(name)
    return found


def parse(kind: Any, words: list[str], prog: str) -> Any:
    """Parses options with tyro; a parse error is one line, and so is an option given twice."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _lists(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        if info.type in (tuple[int, ...], tuple[int, ...] | None):
            return _comma_list(int)
        if info.type == tuple[float, ...]:
            return _comma_list(float)
        # An optional number is read as a number: of a union, tyro says a paragraph.
        return {int | None: _number(int), float | None: _number(float)}.get(info.type)

    several = repeated(kind)
    given(words, several)
    for option, after in zip(words, words[2:], strict=False):
        if option[2:].replace("-", "_") in several and not after.startswith("-"):
            raise ArgumentError(f"{option} takes one text; give it again for {after!r:.60}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            # Without a word None, an optional flag is --chat and --no-chat.
            config = (tyro.conf.DisallowNone, tyro.conf.UseAppendAction)
            return tyro.cli(kind, args=words, prog=prog, registry=registry, config=config)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise Help from None
        raise ArgumentError(_one_line(errors.getvalue(), prog)) from None


def _number(kind: type) -> Any:
    import tyro

    def read(words: list[str]) -> Any:
        try:
            return kind(words[0])
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{words[0]!r} is not {what}") from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _comma_list(item: type) -> Any:
    import tyro

    def read(words: list[str]) -> tuple:
        try:
            return tuple(item(word) for word in words[0].split(","))
        except ValueError:
            raise ValueError(
                f"{words[0]!r} is not a comma-separated list of {item.__name__}s"
            ) from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{item.__name__.upper()},...",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [
            "None" if value is None else ",".join(str(x) for x in value)
        ],
    )


class Help(Exception):  # noqa: N818
    """Help was asked for and printed."""


def _one_line(text: str, prog: str) -> str:
    """Reduces tyro's message to its words: no frame (drawn, or of dashes), title or help text."""
    lines = text.splitlines()
    framed = text.lstrip().startswith("╭")
    inside = [line.strip("│╰╯─ ") for line in lines if not line.startswith("╭")]
    words = " ".join(" ".join(re.sub(r"^ *-{4,} *$", "─", line) for line in inside).split())
    if not framed:
        words = words.partition("─")[2]
    words = re.sub(r"─ *Perhaps you meant: (--[\w-]+)", r"; perhaps you meant \1 ─", words)
    words = re.split(r"Argument helptext|For full helptext|─", words)[0]
    words = re.sub(r"Perhaps you meant: (--[\w-]+).*", r"perhaps you meant \1", words)
    return f"{words.strip().rstrip('.')}; see {prog} --help"


def read_block_size(text: str) -> int | str:
    """Reads --block-size: a number, or auto."""
    if text == "auto":
        return text
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise ArgumentError(f"--block-size {text} must be a whole number of at least 1, or auto")
    return size


USAGE = """\
usage: thicket COMMAND ...

  thicket tasks                       what can be run, one line each
  thicket run TASK [options]          base, sample, score, select, ensemble, report
  thicket density TASKS [options]     one population on several tasks: density, discordance
  thicket resume RUN                  go on with an interrupted run
  thicket report RUN [options]        tables and figures again, from the log alone
  thicket landscape RUN [options]     scores over a plane through the base
  thicket export RUN --rank 1 --to D  one expert (or --merge K) as a checkpoint

  thicket COMMAND --help              the options of a command (thicket run TASK --help)
"""


@contextlib.contextmanager
def help_is_fine() -> Iterator[None]:
    """Ends what is inside where help was asked for."""
    with contextlib.suppress(Help):
        yield


def asks_help(words: Sequence[str]) -> bool:
    """Whether the first word asks for help."""
    return bool(words) and words[0] in ("-h", "--help")


def take_name(words: list[str], command: str, what: str) -> tuple[str, list[str]]:
    """Returns the name that comes first, and the options; no name where help comes instead."""
    if asks_help(words):
        return "", words
    if not words or words[0].startswith("-"):
        raise ArgumentError(f"thicket {command} needs {what} first; see thicket --help")
    return words[0], words[1:]
