"""How answers were asked for, and where they end, as a task's record says it; words alone."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from thicket_jax.reports.documents import Block, Code, Heading, Paragraph, Table
from thicket_jax.runs.record import RunRecord

ASKED, PROMPT = "asked", "prompt"


def how_it_was_asked(record: RunRecord) -> Iterator[Block]:
    """Yields the section, where the task's provenance has `asked`: names and values in words.

    Its entry `prompt` is shown as it is, under the others.
    """
    found = record.config.get("task_provenance", {}).get(ASKED)
    if not isinstance(found, Mapping) or not found:
        return
    yield Heading("How it was asked")
    rows = [(name, _words(value)) for name, value in found.items() if name != PROMPT]
    yield Table(("", ""), tuple(rows), words=2)
    if found.get(PROMPT):
        yield Paragraph("The prompt of the first train item, as the model read it:")
        yield Code(str(found[PROMPT]))


def _words(value: Any) -> str:
    """A value as a reader takes it; texts in a list are quoted, as they may hold line breaks."""
    if isinstance(value, list):
        return " · ".join(json.dumps(each, ensure_ascii=False) for each in value) or "none"
    if isinstance(value, Mapping):
        pairs = ((name, json.dumps(x, ensure_ascii=False)) for name, x in value.items())
        return " · ".join(f"{name} = {x}" for name, x in pairs)
    return str(value)
