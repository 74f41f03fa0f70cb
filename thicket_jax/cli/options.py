"""The options that commands share, or have beside a task's own."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how a run executes; nothing here changes an expert."""

    block_size: str = "auto"
    """Experts per vmap, or auto."""
    backend: str = "pmap"
    """pmap, shard_map or none."""
    cpu_devices: int = 0
    """On a CPU: split the machine into so many devices; 0 is one per core, 8 at most."""
    coordinator: str | None = None
    """Address (host:port) of process 0, for several processes."""
    processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """This process's number, from 0."""
    distributed: bool = False
    """Several processes whose addresses the platform knows (a TPU pod, a cluster)."""
    stream: bool = False
    """Perturb each leaf where it is used and drop it after: for models that fit only once."""
    compile_cache: bool = True
    """Keep compiled programs beside the base models: the next run of the same shapes compiles
    nothing."""
    quiet: bool = False
    """Print the result only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """How the best experts are found."""

    select: str = "all"
    """all scores every expert on every training item; halving and race score every expert on a few,
    the better ones on more, and a few on all."""
    budget: float | None = None
    """With --select halving: share of the item outcomes that may be computed; default 0.1."""
    delta: float | None = None
    """With --select race: probability that the kept experts are not the best; default 0.05. Where
    outcomes have no bounds (signals), a race is a heuristic and this no probability."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Out:
    """Where a run is written."""

    out: str | None = None
    """Run directory; default runs/TASK-DATE-TIME."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `thicket report`."""

    k: tuple[int, ...] | None = None
    """Ensemble sizes; default those of the run."""
    vote: str | None = None
    """Combine rule: majority, weighted (by train scores), mean, median, mean_probs, or one of the
    run's own; several with commas."""
    to: str | None = None
    """Folder to write the report to; default the run directory, which may be read-only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `thicket export`."""

    to: str
    """Folder to write the checkpoint to; must not exist."""
    rank: int | None = None
    """Export the expert of this rank; 1 is the best."""
    merge: int | None = None
    """Export the merge of the best so many experts."""
    dtype: str | None = None
    """With --merge: float32 does not round the sum to 16 bits, in which a mean of steps is lost."""
