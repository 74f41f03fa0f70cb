"""An experiment's records in one JSON file: opened, refused, appended to, written whole."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from thicket_jax.errors import RunError
from thicket_jax.runs import files

_MEND = "name another folder with --out, or delete it"
_MOST_SAID = 6  # phrases of what changed, in one line


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a table has what, as its file has it.

    Attributes:
      settings: the entry that identifies the table; its records are all of these settings.
      records: the entries that are lists of records.
      noun: what one measurement is called, in the plural.
      once: provenance, and the seconds of everything measured, stand once in the table; otherwise
        every record has the provenance of its own measurement.
      digits: of the numbers in a record, which then is one line of the file; None leaves numbers
        as they are and indents.
    """

    settings: str = "settings"
    records: tuple[str, ...] = ("runs",)
    noun: str = "runs"
    once: bool = False
    digits: int | None = None


@dataclasses.dataclass
class Table:
    """A table and its file.

    Attributes:
      place: the file.
      layout: where it has what.
      entries: what the file holds, JSON values.
    """

    place: pathlib.Path
    layout: Layout
    entries: dict[str, Any]

    def has(self, part: str, name: Mapping[str, Any]) -> bool:
        """Whether the list `part` has a record with all the entries of `name`."""
        return any(name.items() <= record.items() for record in self.entries[part])

    def append(
        self,
        part: str,
        records: Sequence[Mapping[str, Any]],
        provenance: Mapping[str, Any],
        seconds: float,
    ) -> list[dict[str, Any]]:
        """Puts records into the list `part` and writes the file; returns them as they are there.

        Args:
          part: one of the layout's lists.
          records: JSON values, or what `plain_json` makes of them.
          provenance: what they were measured on.
          seconds: that they took.
        """
        added = [files.plain_json(record) for record in records]
        if self.layout.digits is not None:
            added = [_rounded(record, self.layout.digits) for record in added]
        if self.layout.once:
            self.entries["seconds"] = self.entries.get("seconds", 0.0) + seconds
            self.entries["provenance"] = dict(provenance)
        else:
            added = [{**record, "provenance": dict(provenance)} for record in added]
        self.entries[part] += added
        self.write()
        return added

    def write(self) -> None:
        """Writes the file, so that it has either its old or its new content, never half of it."""
        if self.layout.digits is None:
            text = json.dumps(self.entries, indent=1, allow_nan=False) + "\n"
        else:
            text = _a_record_a_line(self.entries, self.layout.records)
        beside = self.place.with_name(self.place.name + ".tmp")
        with open(beside, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.place)


def read_table(place: pathlib.Path, layout: Layout) -> Table:
    """Returns the table of a file.

    Raises:
      RunError: there is none, it is damaged, or it is no such table.
    """
    if not place.exists():
        raise RunError(f"{place} is not there yet; measure first, or name its folder with --out")
    wanted = (layout.settings, *layout.records)
    return Table(place, layout, files.read_json(place, wanted, _MEND))


def open_table(place: pathlib.Path, layout: Layout, settings: Mapping[str, Any]) -> Table:
    """Returns the table of a file, or a new one, not yet written, where there is no file.

    Raises:
      RunError: the file has records of other settings, or is no such table.
    """
    wanted = files.plain_json(settings)
    if not place.exists():
        empty: dict[str, Any] = {part: [] for part in layout.records}
        return Table(place, layout, {layout.settings: wanted, **empty})
    table = read_table(place, layout)
    changed = files.differences(*map(_by_name, (table.entries[layout.settings], wanted)))
    if changed:
        more = len(changed) - _MOST_SAID
        said = changed[:_MOST_SAID] + [f"and {more} more"] * (more > 0)
        raise RunError(f"{place} has {layout.noun} of other settings: {'; '.join(said)}; {_MEND}")
    return table


def _by_name(value: Any) -> Any:
    """The same with lists of objects as objects by the first value in each, which names it.

    So that a difference is said of one entry of one case, and not of all cases at once.
    """
    if isinstance(value, Mapping):
        return {key: _by_name(item) for key, item in value.items()}
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        named = {str(next(iter(item.values()), "")): _by_name(item) for item in value}
        return named if len(named) == len(value) else value
    return value


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: _rounded(part, digits) for name, part in value.items()}
    return [_rounded(part, digits) for part in value] if isinstance(value, list) else value


def _a_record_a_line(entries: Mapping[str, Any], lists: Sequence[str]) -> str:
    """JSON in which every record is a line, and every other entry too."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
        for name, value in entries.items()
        if name not in lists
    ]
    for name in lists:
        records = (
            json.dumps(record, separators=(",", ":"), allow_nan=False) for record in entries[name]
        )
        lines.append(f"{json.dumps(name)}: [\n" + ",\n".join(records) + "\n]")
    return "{" + ",\n".join(lines) + "}\n"
