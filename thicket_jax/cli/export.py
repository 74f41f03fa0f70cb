"""`thicket export`."""

import functools
import pathlib

from thicket_jax.cli import machine
from thicket_jax.cli.options import ExportOptions
from thicket_jax.cli.parsing import _help_is_fine, _take_name, parse
from thicket_jax.errors import ArgumentError
from thicket_jax.tasks import registry


def _export(words: list[str]) -> None:
    from thicket_jax.runs import export, files

    with _help_is_fine():
        folder, rest = _take_name(words, "export", "a run directory")
        options = parse(ExportOptions, rest, "thicket export RUN")
        if (options.rank is None) == (options.merge is None):
            raise ArgumentError("thicket export takes either --rank or --merge")
        run_dir = pathlib.Path(folder)
        config = files.read_json(run_dir / "config.json")
        stored = machine.stored_options(run_dir, config)
        module = registry.module(config["task"])
        if hasattr(module, "base_params"):
            params = module.base_params(stored)
        else:
            params = module.build(stored).params
        save = getattr(module, "save", None)
        path = export.export(
            run_dir,
            params,
            pathlib.Path(options.to),
            rank=options.rank,
            merge=options.merge,
            save=None if save is None else functools.partial(save, stored),
        )
        print(f"wrote {path}")
