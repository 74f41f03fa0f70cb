"""Runs the experiment, `python -m experiments.what_makes_an_ensemble`; see README.md."""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
NAME = "experiments.what_makes_an_ensemble"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing from the table, judges and draws it; returns the exit code."""
    from thicket_jax.errors import ThicketError

    try:
        return _run(_parser().parse_args(arguments))
    except ThicketError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {NAME}", description=__doc__)
    parser.add_argument("--model", help="checkpoint folder of stories260K; without it no stories")
    parser.add_argument(
        "--tasks", nargs="+", help="default: digits signals stories; digits if quick"
    )
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ... of each case; default 3")
    parser.add_argument("--out", help="folder for table.json; default results/ beside this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one tiny search, into a temporary folder: shows that it runs",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    machine.start_devices()
    from experiments.what_makes_an_ensemble.cases import FULL, QUICK
    from thicket_jax.errors import check_choice, check_count

    cases = QUICK if options.quick else FULL
    tasks = tuple(dict.fromkeys(case.task for case in cases))
    for name in options.tasks or ():
        check_choice("tasks", name, tasks)
    if options.seeds is not None:
        check_count("seeds", options.seeds)
    wanted = [case for case in cases if case.task in (options.tasks or tasks)]
    if options.quick and not options.tasks:
        wanted = wanted[:1]
    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-ensembles-"))
    table = _open(folder / "table.json", {"cases": [_without_seeds(case) for case in cases]})
    _measure(table, wanted, folder, options)
    order = [case.name for case in cases]
    table["runs"].sort(key=lambda run: (order.index(run["case"]), run["seed"]))
    return _present(table, folder, folder.resolve() == own)


def _measure(
    table: dict[str, Any], cases: Sequence[Any], folder: pathlib.Path, options: argparse.Namespace
) -> None:
    """Runs every search that the table lacks, and writes the table after each."""
    from experiments.what_makes_an_ensemble.measure import measure

    folder.mkdir(parents=True, exist_ok=True)
    have = {(run["case"], run["seed"]) for run in table["runs"]}
    if not options.model and any(case.task == "stories" for case in cases):
        print("stories is left out: it needs --model", flush=True)
        cases = [case for case in cases if case.task != "stories"]
    # All cases with one seed before any with the next: a table that is cut off has every case.
    wanted = [
        (case, seed)
        for seed in range(options.seeds or max((case.seeds for case in cases), default=0))
        for case in cases
        if options.seeds or seed < case.seeds
    ]
    with tempfile.TemporaryDirectory() as cache:
        for case, seed in wanted:
            if (case.name, seed) in have:
                continue
            began = time.monotonic()
            block = 4 if options.quick else "auto"
            run = measure(case, seed, cache, options.model, block)
            table["runs"].append({**run, "provenance": machine.provenance()})
            _write(folder / "table.json", table)
            print(
                f"{case.name}, seed {seed}: base {run['base']['test']:.4f}, best single "
                f"{run['single']['test']:.4f}, {time.monotonic() - began:.1f} s",
                flush=True,
            )


def _present(table: dict[str, Any], folder: pathlib.Path, into_readme: bool) -> int:
    from experiments.readme import replace_between
    from experiments.what_makes_an_ensemble import present, verdict

    summary = verdict.summarise(table["runs"])
    table["verdicts"] = verdict.judge(summary)
    _write(folder / "table.json", table)
    shown = {**table, "summary": summary}
    text = present.text(shown)
    (folder / "table.md").write_text(text + "\n")
    present.draw(shown, folder)
    if into_readme:
        replace_between(HERE / "README.md", "table", text)
    for row in table["verdicts"]:
        if row["verdict"]:
            print(f"{row['case']}, {row['way']} against the top {row['at']}: {row['verdict']}")
    print(f"wrote {folder / 'table.json'}, table.md, ensembles.png and parts.png")
    return 0


def _write(place: pathlib.Path, table: dict[str, Any]) -> None:
    """Writes the table, a run a line and 5 digits a number: what is judged is what is written.

    Written beside the file and renamed, so that a table is whole whenever a run is cut off.
    """
    table["runs"] = [_rounded(run) for run in table["runs"]]
    settings, verdicts = (json.dumps(table.get(x, [])) for x in ("settings", "verdicts"))
    runs = ",\n".join(json.dumps(run, separators=(",", ":")) for run in table["runs"])
    beside = place.with_suffix(".part")
    beside.write_text(
        f'{{"settings": {settings},\n"verdicts": {verdicts},\n"runs": [\n{runs}\n]}}\n'
    )
    beside.replace(place)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _without_seeds(case: Any) -> dict[str, Any]:
    return {name: x for name, x in dataclasses.asdict(case).items() if name != "seeds"}


def _open(place: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the table at `place`, or a new one; a table of other settings is refused."""
    from thicket_jax.errors import RunError
    from thicket_jax.runs import files

    settings = json.loads(json.dumps(settings))  # tuples are lists in a file
    if not place.exists():
        return {"settings": settings, "runs": []}
    table = files.read_json(place)
    table = {name: table[name] for name in ("settings", "runs")}
    if table["settings"] != settings:
        raise RunError(
            f"{place} has runs of other sizes; name another folder with --out, or delete it"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
