"""Runs the experiment: `python -m experiments.stories --model DIR`; see README.md."""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every search, judges and draws them; returns the exit code."""
    from thicket_jax.errors import ThicketError

    began = time.monotonic()
    try:
        return _run(_parser().parse_args(arguments), began)
    except ThicketError as error:
        print(f"experiments.stories: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.stories", description=__doc__)
    parser.add_argument("--model", help="checkpoint folder of stories260K")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of every setting")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[3e-3, 1e-2, 3e-2])
    parser.add_argument("--noises", nargs="+", default=["gaussian", "rademacher"])
    parser.add_argument("--num", type=int, default=512, help="experts of a search, N")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 20], help="ensemble sizes")
    parser.add_argument("--train-items", type=int, default=32)
    parser.add_argument("--test-items", type=int, default=192)
    parser.add_argument("--out", help="folder for table.json and figures; default results/")
    parser.add_argument("--runs", help="keep the run directories in this folder; default: removed")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one seed, 32 experts, few prompts, into a temporary folder: shows that it runs",
    )
    parser.add_argument(
        "--draw", action="store_true", help="run nothing: tables and figures from table.json again"
    )
    return parser


def _run(options: argparse.Namespace, began: float) -> int:
    from thicket_jax.runs import files

    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-stories-"))
    if options.draw:
        table = files.read_json(folder / "table.json")
    else:
        table = _searches(options, folder, began)
    return _present(table, folder, folder.resolve() == own)


def _searches(options: argparse.Namespace, folder: pathlib.Path, began: float) -> dict[str, Any]:
    """Runs all searches, those of one noise law together, since they share a program."""
    from experiments.stories.measure import Search, Size, measure
    from experiments.stories.verdict import accuracy, judge, summarise
    from thicket_jax.runs import files

    _check(options)
    machine.start_devices()
    size = Size(options.num, tuple(options.k), options.train_items, options.test_items)
    seeds = options.seeds
    if options.quick:
        size, seeds = Size(32, (1, 4), 8, 16, max_tokens=24), 1
    wanted = [
        Search(noise, sigma, seed)
        for noise in options.noises
        for sigma in options.sigmas
        for seed in range(seeds)
    ]
    k, runs = max(size.k), []
    with _run_folder(options.runs) as place:
        for count, which in enumerate(wanted, 1):
            run = measure(options.model, which, size, place / which.name)
            runs.append(run)
            print(
                f"[{count}/{len(wanted)}] {which.noise}, sigma {which.sigma:g}, seed {which.seed}: "
                f"base {run['base']['test']:.3f}, best {run['best']['test']:.3f}, ensemble of {k} "
                f"{accuracy(run, 'ensemble', k):.3f}, {run['experts_per_s']:.0f} experts/s, "
                f"{run['seconds']['total']:.1f} s",
                flush=True,
            )
    table = {
        "quick": options.quick,
        "settings": {**dataclasses.asdict(size), "k": list(size.k)},
        "provenance": machine.provenance(),
        "seconds": time.monotonic() - began,
        "summary": summarise(runs, size.k),
        "verdicts": judge(runs, k),
        "runs": runs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "table.json", table)
    return table


def _present(table: dict[str, Any], folder: pathlib.Path, into_readme: bool) -> int:
    from experiments.readme import replace_between
    from experiments.stories import present

    text = present.tables(table)
    (folder / "table.md").write_text(text + "\n")
    present.draw(table, folder)
    if into_readme:
        replace_between(HERE / "README.md", "table", text)
    print(text.split("\n\n")[0])
    print(f"wrote {folder / 'table.json'}, table.md, accuracy.png and density.png")
    return 0


def _check(options: argparse.Namespace) -> None:
    from thicket_jax.errors import ArgumentError, check_choice, check_count
    from thicket_jax.experts import laws
    from thicket_jax.experts.population import check_sigmas
    from thicket_jax.search import pipeline

    if not options.model:
        raise ArgumentError("--model is missing; give the checkpoint folder of stories260K")
    check_count("seeds", options.seeds)
    check_sigmas(options.sigmas)
    pipeline.check_ks(options.k, check_count("num", options.num))
    for name in options.noises:
        check_choice("noises", name, tuple(laws.FAMILIES))


@contextlib.contextmanager
def _run_folder(kept: str | None) -> Iterator[pathlib.Path]:
    if kept is not None:
        yield pathlib.Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="experiments-stories-runs-") as folder:
        yield pathlib.Path(folder)


if __name__ == "__main__":
    sys.exit(main())
