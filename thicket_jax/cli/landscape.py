"""`thicket landscape RUN`: a plane through a run's base, scored, logged and drawn."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from thicket_jax.cli import progress
from thicket_jax.cli.checks import check_machine
from thicket_jax.cli.machine import (
    start_devices,
    stored_options,
    tell_of_digests,
    with_cache,
    working,
)
from thicket_jax.cli.options import Machine
from thicket_jax.cli.parsing import (
    asks_help,
    check_read,
    help_is_fine,
    parse,
    read_block_size,
)
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.runs import files
from thicket_jax.tasks import registry

if TYPE_CHECKING:
    from thicket_jax.experts.planes import Plane
    from thicket_jax.experts.population import Population
    from thicket_jax.runs.record import RunRecord
    from thicket_jax.search.landscapes import Grid
MOST_RUNS = 3
_MOST_POINTS = 1000
_MOST_REACH = 1e6
_LONGEST_NAME = 100
_KEPT = "what is scored is kept; the same command goes on"
USAGE = """\
usage: thicket landscape RUN [RUN [RUN]] [options]

  thicket landscape RUN                              two random directions
  thicket landscape RUN --plane experts --ranks 1,2  the plane of two experts
  thicket landscape RUN --plane principal --top 10   the principal plane of the best ten
  thicket landscape RUN OTHER THIRD                  two or three tasks of one base, as colours

  The plane is that of the first run's experts; scores go to RUN/landscapes/NAME, the picture goes
  into RUN/report.html. Interrupted, the same command goes on.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `thicket landscape`."""

    plane: Literal["random", "experts", "principal"] = "random"
    """Which plane through the base."""
    points: int = 21
    """Points on each side of the grid."""
    reach: float | None = None
    """How far the grid goes beyond the base and the marked points, in the plane's own units."""
    ranks: tuple[int, ...] | None = None
    """With --plane experts: the two experts, by rank; 1 is the best. Default 1,2."""
    top: int = 10
    """With --plane principal: so many of the best experts."""
    seed: int = 0
    """With --plane random: which two directions."""
    name: str | None = None
    """Name of the landscape; default says the plane."""
    block_size: str = "auto"
    """Points per vmap, or auto."""
    backend: str = "pmap"
    """pmap, shard_map or none."""
    cpu_devices: int = 0
    """On a CPU: split the machine into so many devices; 0 is one per core, 8 at most."""
    cache: str | None = None
    """Folder of the base models, if it is not where the run found them."""
    quiet: bool = False
    """Print the result only."""

    @property
    def machine(self) -> Machine:
        """Where and how the points are scored."""
        return Machine(
            block_size=self.block_size, backend=self.backend, cpu_devices=self.cpu_devices
        )

    @property
    def pair(self) -> tuple[int, ...]:
        """The ranks of the two experts."""
        return (1, 2) if self.ranks is None else self.ranks

    @property
    def called(self) -> str:
        """The landscape's name."""
        if self.name is not None:
            return self.name
        if self.plane == "experts":
            return "experts-" + "-".join(map(str, self.pair))
        return f"principal-{self.top}" if self.plane == "principal" else f"random-{self.seed}"


def landscape(words: list[str]) -> None:
    """Scores a plane through a run's base and draws it."""
    with help_is_fine():
        if asks_help(words):
            print(USAGE)
        runs, rest = _split_runs(words)
        options = parse(Options, rest, "thicket landscape RUN")
        _check(options)
        check_read(rest, _unread(options))
        for line in _make(runs, options, progress.quiet if options.quiet else progress.say):
            progress.show(line)


def _split_runs(words: list[str]) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the run directories, which come first, and the options."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if asks_help(words[count:]):
        return [], words[count:]
    if not 1 <= count <= MOST_RUNS:
        raise ArgumentError(
            f"thicket landscape takes one to {MOST_RUNS} run directories first, got {count}; each "
            "is a task, and a colour of the picture"
        )
    if len(set(words[:count])) < count:
        raise ArgumentError("a run directory is there twice; name each once")
    return [pathlib.Path(word) for word in words[:count]], words[count:]


def _make(runs: list[pathlib.Path], options: Options, tell: progress.Say) -> Iterator[str]:
    """Scores what is missing, writes landscape.json and the report; yields lines to print."""
    from thicket_jax.runs.record import load

    records = [load(run) for run in runs]
    for run in runs:
        tell_of_digests(run, tell)
    _check_bases(runs, records)
    if options.cache is not None:
        files.check_place(pathlib.Path(options.cache), "; name another with --cache")
    experts = _experts(runs[0], options)
    folder = runs[0] / "landscapes" / options.called
    start_devices(options.machine)
    from thicket_jax.reports import report, results
    from thicket_jax.runs import digests

    files.check_place(folder)
    with working(_KEPT):
        with digests.changing(runs[0], f"landscapes/{options.called}"):
            found = _score_all(runs, records, experts, folder, options, tell)
        module = registry.module(records[0].config["task"])
        table = results.build_results(records[0])
        report.write(records[0], runs[0], table, draw=getattr(module, "draw", None))
    yield from _lines(found)
    yield f"picture: {runs[0] / 'figures' / ('landscape-' + options.called + '.png')}"
    yield f"report: {runs[0] / 'report.html'}"


def _score_all(
    runs: list[pathlib.Path],
    records: "list[RunRecord]",
    experts: "Population",
    folder: pathlib.Path,
    options: Options,
    tell: progress.Say,
) -> dict[str, Any]:
    """Scores what is missing of every task and writes landscape.json; returns what it holds."""
    from thicket_jax.search import landscapes

    scored, plane, where = [], None, None
    for run, record, name in zip(runs, records, _names(runs), strict=True):
        with progress.Progress(tell, name=name) as shown:
            shown.phase("preparing the base model and the data")
            task = _build(run, record, options, shown.phase)
        try:
            if plane is None:
                plane = _plane(task.problem.params, experts, options)
                where = landscapes.grid(plane, options.points, options.reach)
            assert where is not None
            scored.append(_score(task, name, record, plane, where, folder, options, tell))
        except KeyboardInterrupt as interrupt:
            interrupt.args = (_KEPT,)
            raise
        finally:
            if task.close is not None:
                task.close()
    assert plane is not None and where is not None
    found = files.plain_json(landscapes.to_json(plane, where, scored, options.called))
    files.write_json(folder / "landscape.json", found)
    return dict(found)


def _names(runs: list[pathlib.Path]) -> list[str]:
    """What the runs are called: their folders' names, with the parents' where these are alike."""
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.resolve().parent.name}-{run.resolve().name}" for run in runs]
    if len(set(names)) < len(names):
        names = [f"{n}-{name}" for n, name in enumerate(names, 1)]
    return names


def _unread(options: Options) -> dict[str, str]:
    """Which options nothing reads beside the others, and why."""
    owners = {"ranks": "experts", "top": "principal", "seed": "random"}
    return {
        name: f"belongs to --plane {plane}"
        for name, plane in owners.items()
        if plane != options.plane
    }


def _check(options: Options) -> None:
    """Raises `ArgumentError` for what cannot work, whatever the runs are."""
    check_machine(options.machine)
    if not 2 <= options.points <= _MOST_POINTS:
        raise ArgumentError(f"--points {options.points} must be 2 to {_MOST_POINTS}")
    if options.reach is not None and not 0 < options.reach <= _MOST_REACH:
        raise ArgumentError(f"--reach {options.reach} must be above 0, and {_MOST_REACH:g} at most")
    if len(options.pair) != 2 or options.pair[0] == options.pair[1]:
        raise ArgumentError("--ranks takes the ranks of two different experts, such as 1,2")
    if min(options.pair) < 1:
        raise ArgumentError(f"--ranks {min(options.pair)} must be at least 1, the best")
    if options.top < 2:
        raise ArgumentError(f"--top {options.top} must be at least 2 experts")
    if options.seed < 0:
        raise ArgumentError(f"--seed {options.seed} must be 0 or more")
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*", options.called) or (
        len(options.called) > _LONGEST_NAME
    ):
        raise ArgumentError(
            f"--name {options.called!r} must be of letters, digits, -, _ and ., {_LONGEST_NAME} "
            "at most"
        )


def _check_bases(runs: list[pathlib.Path], records: "list[RunRecord]") -> None:
    prints = [record.config["fingerprints"]["params"] for record in records]
    for run, found in zip(runs, prints, strict=True):
        if found != prints[0]:
            raise ArgumentError(
                f"{run} has other base parameters than {runs[0]}; a plane has one base"
            )


def _build(run: pathlib.Path, record: "RunRecord", options: Options, tell: progress.Say) -> Any:
    """The run's task again; its base and its items must be those of the run."""
    stored = stored_options(run, record.config)
    if options.cache is not None:
        stored = dataclasses.replace(stored, cache=options.cache)
    task = registry.module(record.config["task"]).build(with_cache(stored), tell)
    prints = record.config["fingerprints"]
    train = task.problem.without_hints(task.problem.train)
    for what, tree in (("params", task.problem.params), ("train", train)):
        if files.fingerprint(tree) != prints[what]:
            name = "base parameters" if what == "params" else "training items"
            raise RunError(f"the {name} are not those of {run}; its model or data changed")
    return task


def _experts(run: pathlib.Path, options: Options) -> "Population":
    """The run's experts, best first; there must be as many as the plane needs."""
    from thicket_jax.experts import planes
    from thicket_jax.runs import export

    experts = export.load_population(run)
    if options.plane == "random":
        planes.random_ids(experts, options.seed)
    wanted = max(options.pair) if options.plane == "experts" else options.top
    if options.plane != "random" and wanted > len(experts):
        option = "--ranks" if options.plane == "experts" else "--top"
        found = f"{run} has {len(experts)} experts that did not fail"
        raise ArgumentError(f"{option} {wanted} is too much: {found}")
    return experts


def _plane(params: Any, experts: "Population", options: Options) -> "Plane":
    from thicket_jax.experts import planes

    if options.plane == "random":
        return planes.random_plane(params, experts, options.seed)
    if options.plane == "principal":
        return planes.principal_plane(params, experts[: options.top])
    first, second = options.pair
    names = (f"rank {first}", f"rank {second}")
    return planes.expert_plane(params, experts[first - 1], experts[second - 1], names)


def _score(
    task: Any,
    name: str,
    record: "RunRecord",
    plane: "Plane",
    where: "Grid",
    folder: pathlib.Path,
    options: Options,
    tell: progress.Say,
) -> dict[str, Any]:
    """One task's scores of all points, and its experts' against the log."""
    import numpy as np

    from thicket_jax.mapping.placement import place
    from thicket_jax.runs.log import most_per_call
    from thicket_jax.scoring.scorer import Scorer
    from thicket_jax.search import landscapes

    population = plane.points(where.coordinates)
    problem = task.problem
    placement = place(
        problem.params,
        backend=options.backend,
        block_size=read_block_size(options.block_size),
        most=most_per_call(len(population)),
    )
    scorer = Scorer.placed(
        problem.score_fn,
        problem.params,
        population.noise,
        problem.train,
        placement,
        grade=problem.grade,
        keep_items=False,
        with_id=problem.with_id,
    )
    recipe = files.plain_json(plane.to_json())
    identity = {
        "plane": recipe,
        "x": where.x.tolist(),
        "y": where.y.tolist(),
        "task": {k: record.config[k] for k in ("task", "options", "fingerprints", "versions")},
    }
    with progress.Progress(tell, "point", name) as shown:
        shown.phase(f"compiling, and scoring {len(population)} points")
        scores = landscapes.score_grid(scorer, plane, where, folder / name, identity, shown.points)
    values = np.where(scores.failed, np.nan, scores.values.astype(np.float64))
    base = where.marked(values)[landscapes.BASE]
    if not np.isfinite(base):
        raise RunError(f"the base of {name} has a NaN or infinite score here")
    unit = record.metric.from_score
    return {
        "name": name,
        "metric": record.metric.name,
        "higher_is_better": record.metric.higher_is_better,
        "base": unit(base),
        "gains": values - base,
        "values": np.array([unit(v) for v in values]),
        "checks": landscapes.compare(
            where.marked(values), _logged(record, plane, recipe["basis"]), _step(record)
        ),
    }


def _logged(record: "RunRecord", plane: "Plane", mine: dict[str, Any]) -> dict[str, float]:
    """The logged scores of the marked experts, `mine`, where all items made them."""
    if plane.kind != "experts":
        return {}
    found = {}
    seen, recipe = record.items_seen, record.experts["population"]
    if any(recipe[k] != mine[k] for k in ("prng", "key", "noise")):
        return {}  # a second task's run of other experts
    if record.config["options"].get("temperature"):
        return {}  # sampled answers: all points of a plane share the draws of one expert
    rows = record.experts["experts"]
    for m, name in enumerate(plane.marks):
        for i, row in enumerate(rows):
            same = (row["id"], row["sign"]) == (mine["ids"][m], mine["signs"][m])
            complete = seen is None or seen[i] == seen.max()
            if same and row["sigma"] == mine["sigmas"][m] and complete and not row["failed"]:
                found[name] = float(row["score"])
    return found


def _step(record: "RunRecord") -> float:
    """What one item is worth where it is right or wrong; 0 elsewhere."""
    if record.metric.name != "accuracy" or record.base_train is None:
        return 0.0
    return 1.0 / len(record.base_train) + 1e-6


def _lines(found: dict[str, Any]) -> Iterator[str]:
    plane = found["plane"]
    G = len(found["x"]) * len(found["y"])
    held = f", {plane['share']:.1%} of the steps lie in it" if plane["kind"] == "principal" else ""
    yield f"landscape {found['name']}: {G} points{held}"
    for task in found["tasks"]:
        gains = [g for row in task["gains"] for g in row]
        better = sum(g is not None and g > 0 for g in gains)
        failed = sum(g is None for g in gains)
        lost = f", {failed} failed" if failed else ""
        best = max((g for g in gains if g is not None), default=float("nan"))
        yield (
            f"  {task['name']}: base {task['metric']} {task['base']:.4g}; {better} points are "
            f"better, the best by {best:.4g}{lost}"
        )
        for check in task["checks"]:
            here, logged = f"{check['score']:.6g} here", f"{check['logged']:.6g} in the log"
            yield f"    {check['name']}: score {here}, {logged}"
