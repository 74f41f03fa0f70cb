"""Runs the experiment: `python -m experiments.racing [--model DIR]`; see README.md."""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
QUICKLY = {"block_size": 4, "cold": False, "once": True}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing from the table, and writes it; returns the exit code."""
    from thicket_jax.errors import ThicketError

    try:
        return _run(_parser().parse_args(arguments))
    except ThicketError as error:
        print(f"experiments.racing: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.racing", description=__doc__)
    parser.add_argument("--model", help="checkpoint folder of stories260K; without it no stories")
    parser.add_argument(
        "--tasks", nargs="+", help="default: signals digits stories; signals if quick"
    )
    parser.add_argument("--seeds", type=int, help="seeds of each task; default 5, 5 and 3")
    parser.add_argument("--out", help="folder for table.json; default results/ beside this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes and one seed, into a temporary folder: shows that it runs",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    machine.start_devices()
    from experiments.racing import present
    from experiments.racing.measure import FULL, QUICK, measure
    from thicket_jax.errors import check_choice, check_count
    from thicket_jax.runs import files

    cases = QUICK if options.quick else FULL
    names = tuple(case.task for case in cases)
    for name in options.tasks or ():
        check_choice("tasks", name, names)
    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-racing-"))
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "table.json"
    table = _open(place, {"cases": [_without_seeds(case) for case in cases]})
    have = {(run["task"], run["seed"]) for run in table["runs"]}
    for case in cases:
        seeds = case.seeds if options.seeds is None else check_count("seeds", options.seeds)
        if case.task not in (options.tasks or (names[:1] if options.quick else names)):
            continue
        if case.task == "stories" and not options.model:
            print("stories is left out: it needs --model", flush=True)
            continue
        for seed in range(seeds):
            if (case.task, seed) in have:
                continue
            how = QUICKLY if options.quick else {"cold": seed == 0}
            run = measure(case, seed, options.model, **how)
            table["runs"].append({**run, "provenance": machine.provenance()})
            files.write_json(place, table)
            for way, row in run["ways"].items():
                print(
                    f"{case.task} seed {seed}, {way}: {row['found']} of {case.k} found, "
                    f"{100 * row['share']:.1f} % of the outcomes, {row['seconds']['total']:.1f} s",
                    flush=True,
                )
    table["runs"].sort(key=lambda run: (names.index(run["task"]), run["seed"]))
    table["summary"] = present.summarise(table["runs"])
    table["targets"] = present.targets(table["summary"], {case.task: case.k for case in cases})
    files.write_json(place, table)
    text = present.text(table)
    (folder / "table.md").write_text(text + "\n")
    if folder.resolve() == own:
        from experiments.readme import replace_between

        replace_between(HERE / "README.md", "table", text)
    print(f"wrote {place} and table.md")
    return 0


def _without_seeds(case: Any) -> dict[str, Any]:
    return {name: x for name, x in dataclasses.asdict(case).items() if name != "seeds"}


def _open(place: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the table at `place`, or a new one; a table of other settings is refused."""
    from thicket_jax.errors import RunError
    from thicket_jax.runs import files

    if not place.exists():
        return {"settings": settings, "runs": []}
    table = files.read_json(place)
    if table["settings"] != settings:
        raise RunError(
            f"{place} has runs of other sizes; name another folder with --out, or delete it"
        )
    return dict(table)


if __name__ == "__main__":
    sys.exit(main())
