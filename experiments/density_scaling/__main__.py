"""Runs the experiment: `python -m experiments.density_scaling`; see README.md."""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from experiments import machine

HERE = pathlib.Path(__file__).resolve().parent
QUICK_WIDTHS = (16,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing from the table, judges it and draws it; returns the exit code."""
    from thicket_jax.errors import ThicketError

    try:
        return _run(_parser().parse_args(arguments))
    except ThicketError as error:
        print(f"experiments.density_scaling: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.density_scaling", description=__doc__
    )
    parser.add_argument(
        "--model", help="checkpoint folder of stories260K; without it, no row of its"
    )
    parser.add_argument("--widths", type=int, nargs="+", help="default: 16, 32, 64, 128 and 256")
    parser.add_argument("--seeds", type=int, default=3, help="pretraining seeds 0, 1, ...")
    parser.add_argument("--num", type=int, default=500, help="experts of each setting, N")
    parser.add_argument("--items", type=int, default=40, help="test lines of each task, B")
    parser.add_argument("--cache", help="where models and data are kept; default the user's cache")
    parser.add_argument("--out", help="folder for table.json and figures; default results/")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one width trained for a moment, few experts, in temporary folders",
    )
    parser.add_argument(
        "--draw", action="store_true", help="run nothing: tables and figures from table.json again"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    machine.start_devices()
    from thicket_jax.runs import files

    own = HERE / "results"
    folder = pathlib.Path(options.out) if options.out else own
    if options.quick and not options.out:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="experiments-density-scaling-"))
    table = files.read_json(folder / "table.json") if options.draw else _measure(options, folder)
    return _present(table, folder, folder.resolve() == own)


def _measure(options: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    from experiments.density_scaling import decoder, story_model
    from experiments.density_scaling.dataset import read_lines
    from experiments.density_scaling.measure import SETTINGS, Counts, measure
    from experiments.density_scaling.pretrain import Rule, pretrain_all, pretrained
    from thicket_jax.errors import check_count
    from thicket_jax.runs import files
    from thicket_jax.tasks import task
    from thicket_jax.text.config import read_config

    began = time.monotonic()
    widths = tuple(options.widths or decoder.WIDTHS)
    counts, rule, seeds = Counts(options.num, options.items), Rule(), options.seeds
    block_size: int | str = "auto"
    settings, calls = SETTINGS, SETTINGS[:1]
    if options.quick:
        widths = tuple(options.widths or QUICK_WIDTHS)
        counts, seeds, block_size = Counts(16, 8), 1, 8
        rule = Rule(batch=8, least=20, most=20, round=10, lines=512)
        settings, calls = SETTINGS[:1], SETTINGS[:1]
    for width in widths:
        check_count("widths", width)
        decoder.check(width)
    for name, value in (("seeds", seeds), ("num", counts.num), ("items", counts.items)):
        check_count(name, value)
    if options.model:
        read_config(options.model)  # found missing now, not after an hour of training
    cache = task.Options(cache=options.cache).cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "table.json"
    identity = {"counts": dataclasses.asdict(counts), "rule": dataclasses.asdict(rule)}
    identity["settings"] = [setting.name for setting in settings]
    table = _open(place, identity)
    lines, tests = read_lines(cache, rule.lines, counts.items, 0)

    def say(text: str) -> None:
        print(text, flush=True)

    def done(kind: str, size: int, seed: int) -> bool:
        return any(
            (r["kind"], r["width"], r["seed"]) == (kind, size, seed) for r in table["records"]
        )

    def keep(kind: str, width: int, seed: int, records: list[dict[str, Any]], **more: Any) -> None:
        for record in records:
            table["records"].append({"kind": kind, "width": width, "seed": seed, **more, **record})
            say(f"{kind} {more['parameters']:,} parameters, seed {seed}, {_line(record)}")
        table["seconds"] = table.get("seconds", 0.0) + time.monotonic() - clock
        table["provenance"] = machine.provenance()
        files.write_json(place, table)

    clock = began
    jobs = [(width, seed) for width in widths for seed in range(seeds)]
    pretrain_all([j for j in jobs if not done("trained", *j)], rule, lines, cache, say)
    if options.model and not done("story", 0, 0):
        parameters, records = story_model.measure(options.model, counts, settings, 0)
        keep("story", 0, 0, records, parameters=parameters)
        clock = time.monotonic()
    for seed in range(seeds):
        for width in widths:
            size = decoder.count(width)
            if not done("trained", width, seed):
                params, curve = pretrained(width, seed, rule, lines, cache, say)
                records = measure(width, params, tests, counts, settings, seed, block_size)
                keep("trained", width, seed, records, parameters=size, curve=curve)
                clock = time.monotonic()
            if seed == 0 and not done("untrained", width, seed):
                params = decoder.initialise(width, seed)
                records = measure(width, params, tests, counts, calls, seed, block_size)
                keep("untrained", width, seed, records, parameters=size)
                clock = time.monotonic()
    return table


def _line(record: dict[str, Any]) -> str:
    """One record as a line of plain text."""
    said = [f"{record['setting']} (sigma {record['sigma']:.4g})"]
    for score in ("accuracy", "likelihood"):
        if score in record:
            tasks = record[score]["tasks"].values()
            better = sum(t["density"]["gt"][0] for t in tasks) / len(tasks)
            base = sum(t["base"] for t in tasks) / len(tasks)
            spread = record[score]["discordance"]["value"]
            apart = "-" if spread is None else f"{spread:.2f}"
            said.append(f"{score}: base {base:.3f}, better {better:.1%}, D {apart}")
    return f"{'; '.join(said)}; {record['seconds']:.1f} s"


def _open(place: pathlib.Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Returns the table at `place`, or a new one; a table of other settings is refused."""
    from thicket_jax.errors import RunError
    from thicket_jax.runs import files

    if not place.exists():
        return {"identity": identity, "records": []}
    table = files.read_json(place)
    changed = files.differences(table["identity"], identity)
    if changed:
        raise RunError(
            f"{place} has records of other settings: {'; '.join(changed)}; name another folder "
            "with --out, or delete it"
        )
    return dict(table)


def _present(table: dict[str, Any], folder: pathlib.Path, into_readme: bool) -> int:
    from experiments.density_scaling import present, verdict
    from thicket_jax.runs import files

    trained = [record for record in table["records"] if record["kind"] == "trained"]
    table["verdicts"] = verdict.judge(trained, table["identity"]["counts"]["items"])
    files.write_json(folder / "table.json", table)
    text = present.tables(table)
    (folder / "table.md").write_text(text + "\n")
    present.draw(table, folder)
    if into_readme:
        from experiments.readme import replace_between

        replace_between(HERE / "README.md", "table", text)
    for row in table["verdicts"]:
        print(
            f"{row['setting']}, {row['score']} {row['better']}: density {row['density']}, "
            f"discordance {row['discordance']['word']}"
        )
    print(f"wrote {folder / 'table.json'}, table.md, density.png and discordance.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
