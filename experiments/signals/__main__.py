"""Runs the experiment: `python -m experiments.signals`; see README.md."""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
QUICK_PAIRS = ("xavier:one_line", "line:line")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing from the table, judges it and draws it; returns the exit code."""
    from thicket_jax.errors import ThicketError

    try:
        return _run(_parser().parse_args(arguments))
    except ThicketError as error:
        print(f"experiments.signals: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.signals", description=__doc__)
    parser.add_argument("--pairs", nargs="+", metavar="PRETRAIN:TARGET", help="default: all 16")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each pair")
    parser.add_argument("--num", type=int, default=1000, help="experts per run, N")
    parser.add_argument("--k", type=int, default=10, help="experts in the ensemble, K")
    parser.add_argument("--train-items", type=int, default=1024)
    parser.add_argument("--test-items", type=int, default=256)
    parser.add_argument("--out", help="folder for table.json; default results/ beside this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two pairs, one seed, 20 experts, into a temporary folder: shows that it runs",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    machine.start_devices()
    from experiments.signals import present, verdict
    from experiments.signals.measure import PAIRS, Size, measure
    from thicket_jax.runs import files

    size = Size(options.num, options.k, options.train_items, options.test_items)
    pairs, seeds, block_size = tuple(options.pairs or PAIRS), options.seeds, "auto"
    if options.quick:
        size, seeds, block_size = Size(20, 2, 16, 8), 1, 4  # type: ignore[assignment]
        pairs = tuple(options.pairs or QUICK_PAIRS)
    _check(pairs, seeds)
    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-signals-"))
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "table.json"
    table = _open(place, dataclasses.asdict(size))
    wanted = [(pair, seed) for pair in pairs for seed in range(seeds)]
    have = {(run["pair"], run["seed"]) for run in table["runs"]}
    missing = [key for key in wanted if key not in have]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {place}", flush=True)
    for count, (pair, seed) in enumerate(missing, 1):
        run = measure(pair, seed, size, block_size)
        table["runs"].append({**run, "provenance": machine.provenance()})
        files.write_json(place, table)
        print(
            f"[{count}/{len(missing)}] {pair} seed {seed}: base {run['base']['test']:.4f}, "
            f"best {run['best']['test']:.4f}, ensemble {verdict.ensemble_error(run):.4f}, "
            f"{run['seconds']['total']:.1f} s",
            flush=True,
        )
    order = [*PAIRS, *sorted({run["pair"] for run in table["runs"]} - set(PAIRS))]
    table["pairs"] = verdict.summarise(table["runs"], order)
    table["verdicts"] = verdict.judge(table["pairs"], size.k, size.num)
    files.write_json(place, table)
    peer = json.loads((HERE / "peer.json").read_text())
    text = present.tables(table["runs"], table["pairs"], table["verdicts"], table["settings"], peer)
    (folder / "table.md").write_text(text + "\n")
    present.draw(table["runs"], table["pairs"], peer, folder / "overview.png")
    if folder.resolve() == own:
        from experiments.readme import replace_between

        replace_between(HERE / "README.md", "table", text)
    for row in table["verdicts"]:
        print(f"{row['claim']}: {row['verdict']}")
    print(f"wrote {place}, table.md and overview.png")
    return 0


def _check(pairs: Sequence[str], seeds: int) -> None:
    from thicket_jax.errors import ArgumentError, check_choice, check_count
    from thicket_jax.tasks.signals.families import SIGNALS
    from thicket_jax.tasks.signals.task import PRETRAINS

    check_count("seeds", seeds)
    for pair in pairs:
        pretrain, colon, target = pair.partition(":")
        if not colon:
            raise ArgumentError(f"--pairs {pair} must be PRETRAIN:TARGET, such as mixed:sinusoid")
        check_choice("pretrain", pretrain, PRETRAINS)
        check_choice("target", target, SIGNALS)


def _open(place: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the table at `place`, or a new one; a table of other settings is refused."""
    from thicket_jax.errors import RunError
    from thicket_jax.runs import files

    if not place.exists():
        return {"settings": settings, "runs": []}
    table = files.read_json(place)
    changed = files.differences(table["settings"], settings)
    if changed:
        raise RunError(
            f"{place} has runs of other settings: {'; '.join(changed)}; name another folder with "
            "--out, or delete it"
        )
    return dict(table)


if __name__ == "__main__":
    sys.exit(main())
