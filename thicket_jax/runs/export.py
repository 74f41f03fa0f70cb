"""One expert, or a merge of the best, of a finished run as a checkpoint."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from thicket_jax.ensembles import merging
from thicket_jax.errors import ArgumentError, RunError, check_count
from thicket_jax.experts.perturbation import perturb
from thicket_jax.experts.population import Population
from thicket_jax.runs import checkpoints, consistency, digests, files, record

Save = Callable[[Any, pathlib.Path, Mapping[str, Any]], Any]
"""`(params, folder, notes)` writes a checkpoint; `notes` is JSON, the recipe of these weights."""


def load_population(run_dir: pathlib.Path) -> Population:
    """Returns the experts of a finished run that did not fail, best first.

    items.npz and the log may have been deleted; what is there is checked.
    """
    path = run_dir / "experts.json"
    if not path.exists() and (run_dir / "config.json").exists():
        raise RunError(f"{run_dir} is not finished; go on with: thicket resume {run_dir}")
    if (run_dir / "items.npz").exists():
        return _population(record.load(run_dir).experts)
    stored = files.read_json(path, ("population", "base", "experts"))
    config = files.read_json(run_dir / "config.json")
    digests.check(run_dir)
    try:
        fault = consistency.experts_fault(stored, config)
        found = _population(stored)
    except (KeyError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise RunError(f"{path} is damaged ({fault}); restore it from a copy")
    return found


def _population(stored: Mapping[str, Any]) -> Population:
    rows = sorted((r for r in stored["experts"] if not r["failed"]), key=lambda r: r["rank"])
    columns = {f"{name}s": [row[name] for row in rows] for name in ("id", "sigma", "sign")}
    return Population.from_json({**stored["population"], **columns})


def check_wanted(
    run_dir: pathlib.Path,
    experts: Population,
    to: pathlib.Path,
    *,
    rank: int | None = None,
    merge: int | None = None,
    dtype: str | None = None,
) -> int:
    """Returns the rank or the count of what is to be exported; see `export` for what is refused."""
    wanted = check_count("rank" if merge is None else "merge", rank if merge is None else merge)
    if wanted > len(experts):
        raise ArgumentError(f"{run_dir} has {len(experts)} experts that did not fail, not {wanted}")
    if dtype is not None and merge is None:
        raise ArgumentError(
            f"dtype={dtype!r} is of merges; an expert is written in the dtype it was scored in"
        )
    merging.check_dtype(dtype)
    if to.exists():
        raise ArgumentError(f"{to} exists; choose another folder")
    return wanted


def export(
    run_dir: pathlib.Path,
    params: Any,
    to: pathlib.Path,
    *,
    rank: int | None = None,
    merge: int | None = None,
    dtype: str | None = None,
    save: Save | None = None,
) -> pathlib.Path:
    """Writes one expert's parameters, the bits that were scored, or a merge.

    Under a low-rank law with `rounded=False` matrices of 16 bits are written in float32, as
    `perturb` and `merge` return them.

    Everything comes from `params` and experts.json: the log is not read.

    Args:
      run_dir: a finished run.
      params: the run's base parameters; their fingerprint is compared with the run's.
      to: folder of the checkpoint; must not exist.
      rank: of the expert, 1 is the best.
      merge: merge the best so many experts instead, with equal weights.
      dtype: of a merge, as in `merge`.
      save: writes the checkpoint in the task's own format; default Orbax, as a pytree.

    Returns:
      The checkpoint's absolute path.

    Raises:
      RunError: the run is unfinished or damaged, or `params` are not its base.
      ArgumentError: a rank or count beyond the experts, a dtype of a single expert, or `to` exists.
    """
    experts = load_population(run_dir)
    config = files.read_json(run_dir / "config.json", ("task", "model", "versions", "fingerprints"))
    if files.fingerprint(params) != config["fingerprints"]["params"]:
        raise RunError(f"the base parameters are not those of {run_dir}; its base model changed")
    wanted = check_wanted(run_dir, experts, to, rank=rank, merge=merge, dtype=dtype)
    if merge is None:
        chosen = experts[wanted - 1 : wanted]
        tree = perturb(params, chosen[0])
    else:
        chosen = experts[:wanted]
        tree = merging.merge(params, chosen, dtype=dtype)
    if save is None:
        checkpoints.save(to, tree)
    else:
        notes = {
            "made_by": f"thicket_jax {config['versions']['thicket_jax']}",
            "task": config["task"],
            "base": {"model": config["model"], "fingerprint": config["fingerprints"]["params"]},
            "rank" if merge is None else "merge": wanted,
            **({} if dtype is None else {"dtype": dtype}),
            "experts": chosen.to_json(),
        }
        save(tree, to, notes)
    return to.absolute()
