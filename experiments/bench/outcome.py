"""A benchmark's result: measured, written as JSON, and said as Markdown."""

import importlib
import json
import pathlib
from types import ModuleType
from typing import Any

from experiments.common import machine
from experiments.common.readme import markdown_table, number
from thicket_jax.runs import files

_GIVEN_A_MODEL = ("text", "decoder", "text_slots")


def measure(
    name: str, quick: bool, torch_python: str, model: str | None, chips: str | None = None
) -> dict[str, Any]:
    """Runs a benchmark.

    Args:
      name: of its file.
      quick: tiny sizes.
      torch_python: a Python that has torch, for what is compared with.
      model: a checkpoint folder, for those that take one.
      chips: names of accelerators to compile for, for the one that does; None: all.

    Returns:
      JSON values: what was measured, `targets`, and what it was measured on.
    """
    about = {"model": model} if name in _GIVEN_A_MODEL else {}
    about |= {"chips": chips} if name == "aot" else {}
    found = _benchmark(name).run(quick, torch_python, **about)
    where = machine.provenance()
    if found.get("torch"):
        where["versions"]["torch"] = found["torch"]["torch"]
    return {"benchmark": name, "quick": quick, "provenance": where, **found}


def write(name: str, result: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes a result; returns its file: one for each platform, or what it is `about`."""
    place = folder / f"{name}-{result.get('about') or result['provenance']['platform']}.json"
    files.write_json(place, result)
    return place


def text(name: str, result: dict[str, Any]) -> str:
    """Returns a result as Markdown: its own text, its targets, what it was measured on."""
    rows = [
        [
            row["name"],
            f"{row['direction']} {row['limit']:g}",
            number(row["measured"]),
            {True: "yes", False: "no", None: "not measured"}[row["met"]],
        ]
        for row in result["targets"]
    ]
    table = [markdown_table(["target", "wanted", "measured", "met"], rows)] if rows else []
    return "\n\n".join(
        [_benchmark(name).text(result), *table, machine.sentence(result["provenance"])]
    )


def every_platform(name: str, folder: pathlib.Path) -> str:
    """Returns the results of all platforms in a folder as Markdown."""
    found = sorted(folder.glob(f"{name}-*.json"))
    return "\n\n".join(text(name, json.loads(file.read_text())) for file in found)


def _benchmark(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.bench.{name}")
