"""Runs the experiment: `python -m experiments.needle_or_thicket`; see README.md."""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
SIGNALS = HERE.parent / "signals" / "results" / "table.json"
PARTS = ("roll_outs", "neighbourhoods", "tunings")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing from the table, judges it and draws it; returns the exit code."""
    from thicket_jax.errors import ThicketError

    try:
        return _run(_parser().parse_args(arguments))
    except ThicketError as error:
        print(f"experiments.needle_or_thicket: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.needle_or_thicket", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of every cell")
    parser.add_argument("--targets", nargs="+", help="default: line sinusoid squarewave")
    parser.add_argument("--out", help="folder for table.json and figures; default results/")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one target, one seed, few experts, into a temporary folder: shows that it runs",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    machine.start_devices()
    from experiments.needle_or_thicket import size as sizes
    from experiments.needle_or_thicket.bases import sized
    from thicket_jax.errors import check_choice, check_count
    from thicket_jax.runs import files

    seeds = check_count("seeds", options.seeds)
    targets = tuple(options.targets or sizes.TARGETS)
    for target in targets:
        check_choice("targets", target, sizes.TARGETS)
    size = sizes.Size()
    if options.quick:
        size, seeds = sizes.QUICK, 1
        targets = tuple(options.targets or targets[:1])
    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-needle-"))
    signals = files.read_json(SIGNALS)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "table.json"
    table = _open(place, sized(size))
    with tempfile.TemporaryDirectory() as cache:
        wanted = list(_cells(targets, seeds, size, signals, options.quick, cache))
        missing = [cell for cell in wanted if not _has(table, *cell[:2])]
        print(f"{len(wanted) - len(missing)} of {len(wanted)} cells are in {place}", flush=True)
        for count, (part, name, measure) in enumerate(missing, 1):
            cell = measure()
            table[part].append({**cell, "provenance": machine.provenance()})
            files.write_json(place, table)
            print(f"[{count}/{len(missing)}] {part}, {_words(name)}: {_said(cell)}", flush=True)
    return _present(table, signals, folder, folder.resolve() == own)


def _cells(
    targets: Sequence[str],
    seeds: int,
    size: Any,
    signals: dict[str, Any],
    quick: bool,
    cache: str,
) -> Iterator[tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]]:
    """(part of the table, what names the cell, how it is measured); whole seeds first."""
    from functools import partial

    from experiments.needle_or_thicket import neighbourhood, roll_outs, tuning
    from experiments.needle_or_thicket.size import BASES

    block_size: int | str = 4 if quick else "auto"
    settings = signals["settings"]
    if quick:
        settings = {"num": size.num, "k": size.k, "train_items": size.train_items, "test_items": 2}
    for pairs in roll_outs.PAIRS[: 1 if quick else None]:
        for pair in pairs:
            measure = partial(roll_outs.measure, pair, settings, size, cache, block_size)
            yield "roll_outs", {"pair": pair}, measure
    for seed in range(seeds):
        for target in targets:
            for base in BASES:
                name = {"base": base, "target": target, "seed": seed}
                args = (base, target, seed, size, cache, block_size)
                yield "neighbourhoods", name, partial(neighbourhood.measure, *args)
            name = {"target": target, "seed": seed}
            args = (target, seed, size, cache, block_size)
            yield "tunings", name, partial(tuning.measure, *args)


def _has(table: dict[str, Any], part: str, name: dict[str, Any]) -> bool:
    return any(all(cell[k] == v for k, v in name.items()) for cell in table[part])


def _words(name: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in name.items())


def _said(cell: dict[str, Any]) -> str:
    seconds = cell["seconds"]
    total = sum(seconds.values()) if isinstance(seconds, dict) else seconds
    return f"{total:.1f} s"


def _open(place: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the table at `place`, or a new one; a table of other settings is refused."""
    from thicket_jax.errors import RunError
    from thicket_jax.runs import files

    if not place.exists():
        return {"settings": settings, **{part: [] for part in PARTS}}
    table = files.read_json(place)
    changed = files.differences(table["settings"], settings)
    if changed:
        raise RunError(
            f"{place} has cells of other settings: {'; '.join(changed)}; name another folder with "
            "--out, or delete it"
        )
    return dict(table)


def _present(
    table: dict[str, Any], signals: dict[str, Any], folder: pathlib.Path, into_readme: bool
) -> int:
    from experiments.needle_or_thicket import draw, present, summary, verdict
    from thicket_jax.runs import files

    size = table["settings"]
    pooled = summary.pool(table["neighbourhoods"], size["margins"])
    table["density_verdicts"] = verdict.judge_density(pooled, size["k"], size["num"])
    table["tuning_verdicts"] = verdict.judge_tuning(table["tunings"])
    # Of the pooled shares, the file has those that are judged; the counts of all are in the cells.
    table["pooled"] = [row for row in pooled if row["margin"] == verdict.GOOD]
    files.write_json(folder / "table.json", table)
    table = {**table, "pooled": pooled}
    texts = present.tables(table, signals)
    whole = "\n\n".join(texts.values())
    (folder / "table.md").write_text(whole + "\n")
    draw.paper(table, signals, folder / "paper.png")
    draw.density(table, folder / "density.png")
    draw.distance(table, folder / "distance.png")
    draw.horizon(table, folder / "horizon.png")
    if into_readme:
        from experiments.readme import replace_between

        for name, text in texts.items():
            replace_between(HERE / "README.md", name, text)
    for row in table["density_verdicts"]:
        print(f"{row['claim']}: {row['verdict']}")
    for row in table["tuning_verdicts"]:
        counts = f"ahead {row['ahead']}, level {row['level']}, behind {row['behind']}"
        print(f"ensemble against {row['opponent']}, {row['horizon']} steps: {counts}")
    print(f"wrote {folder / 'table.json'}, table.md and four figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
