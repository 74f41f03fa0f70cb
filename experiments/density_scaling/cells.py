"""Which models there are: trained ones of every width and seed, untrained ones, and stories260K."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.common.command import Cell, Plan, say
from experiments.density_scaling import decoder, story_model
from experiments.density_scaling.dataset import Lines, read_lines
from experiments.density_scaling.measure import SETTINGS, Counts, Setting, measure
from experiments.density_scaling.pretrain import Rule, pretrain_all, pretrained
from thicket_jax.errors import check_count
from thicket_jax.tasks import task
from thicket_jax.text.config import read_config

QUICK_WIDTHS = (16,)


def plan(options: argparse.Namespace, work: pathlib.Path) -> Plan:
    """Returns the models that the options ask for; they are kept in the cache, not in `work`."""
    widths = tuple(options.widths or (QUICK_WIDTHS if options.quick else decoder.WIDTHS))
    how = Models(
        Counts(options.num, options.items),
        Rule(),
        SETTINGS,
        task.Options(cache=options.cache).cache_folder(),
    )
    if options.quick:
        few = Rule(batch=8, least=20, most=20, round=10, lines=512)
        how = Models(Counts(16, 8), few, SETTINGS[:1], how.cache, block_size=2)
    for width in widths:
        check_count("widths", width)
        decoder.check(width)
    for name, value in dataclasses.asdict(how.counts).items():
        check_count(name, value)
    found = []
    if options.model:
        read_config(options.model)  # found missing now, not after an hour of training
        found.append(_cell("story", 0, 0, functools.partial(how.story, options.model)))
    for seed in range(options.seeds):
        for width in widths:
            found.append(_cell("trained", width, seed, functools.partial(how.trained, width, seed)))
            if seed == 0:
                found.append(_cell("untrained", width, 0, functools.partial(how.untrained, width)))
    identity = {
        "counts": dataclasses.asdict(how.counts),
        "rule": dataclasses.asdict(how.rule),
        "settings": [setting.name for setting in how.settings],
    }
    return Plan(identity, found, how.pretrain)


def _cell(kind: str, width: int, seed: int, run: Any) -> Cell:
    return Cell({"kind": kind, "width": width, "seed": seed}, run, "records")


@dataclasses.dataclass(frozen=True)
class Models:
    """How every model is trained and measured.

    Attributes:
      counts: experts and items.
      rule: of training.
      settings: the populations.
      cache: where models and data are kept.
      block_size: experts per vmap.
    """

    counts: Counts
    rule: Rule
    settings: tuple[Setting, ...]
    cache: pathlib.Path
    block_size: int | str = "auto"

    @functools.cached_property
    def lines(self) -> tuple[Lines, dict[str, Lines]]:
        """Training lines, and the test lines of each task."""
        return read_lines(self.cache, self.rule.lines, self.counts.items, 0)

    def pretrain(self, missing: Sequence[Cell]) -> None:
        """Trains what the cache lacks, side by side: one decoder alone would use one device."""
        jobs = [
            (cell.name["width"], cell.name["seed"])
            for cell in missing
            if cell.name["kind"] == "trained"
        ]
        if jobs:
            pretrain_all(jobs, self.rule, self.lines[0], self.cache, say)

    def trained(self, width: int, seed: int) -> list[dict[str, Any]]:
        """Returns the records of a trained decoder, each with its learning curve."""
        params, curve = pretrained(width, seed, self.rule, self.lines[0], self.cache, say)
        return self._records(width, params, self.settings, seed, curve=curve)

    def untrained(self, width: int) -> list[dict[str, Any]]:
        """Returns the record of a decoder as it is initialised, at the first setting alone."""
        return self._records(width, decoder.initialise(width, 0), self.settings[:1], 0)

    def story(self, model: str) -> list[dict[str, Any]]:
        """Returns the records of the checkpoint in a folder."""
        parameters, records = story_model.measure(model, self.counts, self.settings, 0)
        return [{"parameters": parameters, **record} for record in records]

    def _records(
        self, width: int, params: Any, settings: tuple[Setting, ...], seed: int, **more: Any
    ) -> list[dict[str, Any]]:
        tests = self.lines[1]
        found = measure(width, params, tests, self.counts, settings, seed, self.block_size)
        return [{"parameters": decoder.count(width), **more, **record} for record in found]


def describe(cell: Cell, records: list[dict[str, Any]]) -> list[str]:
    """Returns a model's densities and discordances, a line for each setting."""
    return [
        f"{record['kind']} {record['parameters']:,} parameters, seed {record['seed']}, "
        f"{_line(record)}"
        for record in records
    ]


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
