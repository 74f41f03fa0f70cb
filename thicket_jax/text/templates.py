"""Chat templates as texts: what one reads, and what a user passes to it."""

import functools
import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from thicket_jax.errors import ArgumentError

# What every template is given, whatever it is asked.
_GIVEN = {"messages", "tools", "documents", "add_generation_prompt"}
_GIVEN |= {"raise_exception", "strftime_now"}
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # a tag of transformers' own
_PYTHON = {"True": "true", "False": "false", "None": "null"}


def arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns KEY=VALUE texts as what a template is given; a value is JSON, or else text.

    Raises:
      ArgumentError: a text is no KEY=VALUE, a key is there twice, or a value is Python's True,
        False or None, which would be a text.

    Example:
      >>> arguments(["enable_thinking=false", "date_string=26 Jul 2024"])
      {'enable_thinking': False, 'date_string': '26 Jul 2024'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ArgumentError(
                f"--template {text!r} must be KEY=VALUE, such as enable_thinking=false"
            )
        if key in found:
            raise ArgumentError(f"--template gives {key} twice; give it once")
        if value in _PYTHON:
            raise ArgumentError(
                f"--template {text}: values are JSON, so say {_PYTHON[value]} (as it is, it would "
                f"be a text; if that is meant, say {key}='\"{value}\"')"
            )
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)  # NaN and Infinity, which JSON has not

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def check_arguments(
    given: Mapping[str, Any], template: str, taken: Collection[str], folder: str
) -> None:
    """Raises `ArgumentError` where a template reads no variable of that name.

    Args:
      given: what a user passes to it.
      template: its text.
      taken: names that the tokenizer itself fills in, such as bos_token.
      folder: the checkpoint, for the error.
    """
    known = reads(template) - set(taken)
    for key in given:
        if key not in known:
            what = f"it reads {', '.join(sorted(known))}" if known else "it reads none"
            raise ArgumentError(
                f"--template {key}: the chat template in {folder} reads no such argument; {what}"
            )


@functools.lru_cache(maxsize=8)
def reads(template: str) -> frozenset[str]:
    """Returns the variables that a template reads, beside those that every one is given.

    Also in its blocks and macros. A template that cannot be parsed reads none: applying it says
    what is wrong with it.

    Example:
      >>> sorted(reads("{% if think is defined %}{{ messages[0].content }}{{ day }}{% endif %}"))
      ['day', 'think']
    """
    import jinja2
    import jinja2.meta

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(_GENERATION.sub("", template))
    except jinja2.TemplateError:
        return frozenset()
    found = jinja2.meta.find_undeclared_variables(tree)
    return frozenset(found - _GIVEN - environment.globals.keys())


def has_template(folder: str | pathlib.Path) -> bool:
    """Whether a checkpoint folder has a chat template, by its files alone."""
    place = pathlib.Path(folder).expanduser()
    if any((place / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        settings = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))
