"""`thicket export`."""

import functools
import pathlib

from thicket_jax.cli import progress
from thicket_jax.cli.machine import stored_options, tell_of_digests, with_cache, working
from thicket_jax.cli.options import ExportOptions
from thicket_jax.cli.parsing import help_is_fine, parse, take_name
from thicket_jax.errors import ArgumentError, check_count
from thicket_jax.tasks import registry


def export(words: list[str]) -> None:
    """Writes an expert, or a merge of the best, of a finished run as a checkpoint."""
    with help_is_fine():
        folder, rest = take_name(words, "export", "a run directory")
        options = parse(ExportOptions, rest, "thicket export RUN")
        if (options.rank is None) == (options.merge is None):
            raise ArgumentError("thicket export takes either --rank or --merge")
        for name, value in (("rank", options.rank), ("merge", options.merge)):
            if value is not None:
                check_count(name, value)
        progress.show(f"wrote {_write(pathlib.Path(folder), options)}")


def _write(run_dir: pathlib.Path, options: ExportOptions) -> pathlib.Path:
    """Writes the checkpoint, in the task's own format if it has one; returns its path."""
    from thicket_jax.runs import export, files

    to = pathlib.Path(options.to)
    files.check_place(to)
    config = files.read_json(run_dir / "config.json", ("task", "options"))
    # Refused before a model is read, or trained again.
    experts = export.load_population(run_dir)
    export.check_wanted(
        run_dir, experts, to, rank=options.rank, merge=options.merge, dtype=options.dtype
    )
    tell_of_digests(run_dir, progress.say)
    stored = with_cache(stored_options(run_dir, config))
    module = registry.module(config["task"])
    with progress.Progress(progress.say) as shown:
        shown.phase("preparing the base model")
        if hasattr(module, "base_params"):
            params = module.base_params(stored)
        else:
            params = module.build(stored, shown.phase).problem.params
    save = getattr(module, "save", None)
    save = None if save is None else functools.partial(save, stored)
    with working(f"{run_dir} is as it was"):
        return export.export(
            run_dir,
            params,
            to,
            rank=options.rank,
            merge=options.merge,
            dtype=options.dtype,
            save=save,
        )
