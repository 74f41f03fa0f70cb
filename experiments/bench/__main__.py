"""Runs the benchmarks: `python -m experiments.bench [NAME ...]`; see README.md.

Each benchmark runs in a process of its own, so that none inherits another's memory or threads.
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
NAMES = (
    "scoring",
    "pretraining",
    "noise",
    "low_rank",
    "decoder",
    "blocks",
    "mappers",
    "compiling",
    "memory",
    "cost_of_n",
    "text",
    "text_large",
)
BY_NAME = ("text_accelerator",)  # not part of `all`: needs an accelerator


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks that are asked for; returns the exit code."""
    from thicket_jax.errors import ThicketError

    options = _parser().parse_args(arguments)
    names: tuple[str, ...] = (options.name,)
    if options.name == "all":
        names = NAMES if options.model else tuple(name for name in NAMES if name != "text")
        if not options.model:
            print("text is left out: it needs --model, the checkpoint folder of stories260K")
    if names == ("text",) and not options.model:
        needs = "text needs --model, the checkpoint folder of stories260K"
        print(f"experiments.bench: {needs}", file=sys.stderr)
        return 2
    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    if len(names) > 1:
        return _one_by_one(names, folder, options)
    try:
        place, result = _measure(names[0], folder, options)
        print(_text(names[0], result))
        print(f"wrote {place}")
        if folder.resolve() == own:
            _into_readme(names[0], own)
    except ThicketError as error:
        print(f"experiments.bench: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("name", nargs="?", default="all", choices=[*NAMES, *BY_NAME, "all"])
    parser.add_argument("--out", help="folder for NAME-PLATFORM.json; default results/")
    parser.add_argument(
        "--torch-python",
        default=sys.executable,
        help="a Python that has torch and numpy (text: transformers too); default this one",
    )
    parser.add_argument("--model", help="text: the checkpoint folder of stories260K")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes, into a temporary folder: shows that it runs, measures nothing",
    )
    return parser


def _one_by_one(names: Sequence[str], folder: pathlib.Path, options: argparse.Namespace) -> int:
    words = [sys.executable, "-m", "experiments.bench"]
    common = ["--out", str(folder), "--torch-python", options.torch_python]
    common += ["--quick"] * options.quick
    common += ["--model", options.model] if options.model else []
    codes = [subprocess.run([*words, name, *common], check=False).returncode for name in names]
    return max(codes)


def _measure(
    name: str, folder: pathlib.Path, options: argparse.Namespace
) -> tuple[pathlib.Path, dict[str, Any]]:
    from thicket_jax.runs import files

    about = {"model": options.model} if name in ("text", "decoder") else {}
    machine.start_devices()
    found = importlib.import_module(f"experiments.bench.{name}").run(
        options.quick, options.torch_python, **about
    )
    where = machine.provenance()
    if found.get("torch"):
        where["versions"]["torch"] = found["torch"]["torch"]
    result = {"benchmark": name, "quick": options.quick, "provenance": where, **found}
    place = folder / f"{name}-{machine.label()}.json"
    files.write_json(place, result)
    return place, result


def _text(name: str, result: dict[str, Any]) -> str:
    """A benchmark's result as Markdown: its own text, its targets, what it was measured on."""
    from experiments.readme import markdown_table, number

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
        [
            importlib.import_module(f"experiments.bench.{name}").text(result),
            *table,
            machine.sentence(result["provenance"]),
        ]
    )


def _into_readme(name: str, folder: pathlib.Path) -> None:
    """Writes a benchmark's results, of every platform there is, into README.md."""
    from experiments.readme import replace_between

    files = sorted(folder.glob(f"{name}-*.json"))
    texts = [_text(name, json.loads(file.read_text())) for file in files]
    replace_between(HERE / "README.md", name, "\n\n".join(texts))


if __name__ == "__main__":
    sys.exit(main())
