"""The options of the commands, and how words become options: one line for what cannot."""

import contextlib
import dataclasses
import io
import re
from typing import Any

from thicket_jax.errors import ArgumentError


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
    """With --select race: probability that the kept experts are not the best; default 0.05."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Out:
    """Where a run is written."""

    out: str | None = None
    """Run directory; default runs/TASK-DATE-TIME."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityOptions:
    """What `thicket density` takes beside the tasks' own options."""

    margins: tuple[float, ...] = (0.0,)
    """Margins over the base's score at which density is tabled, in the unit of the scores."""
    out: str | None = None
    """Directory of the runs, one folder a task; an interrupted one goes on. Default
    runs/density-DATE-TIME."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `thicket report`."""

    k: tuple[int, ...] | None = None
    """Ensemble sizes; default those of the run."""
    vote: str | None = None
    """Combine rule: majority, weighted (by train scores), mean, median, mean_probs, or one of the
    run's own; several with commas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `thicket export`."""

    to: str
    """Folder to write the checkpoint to; must not exist."""
    rank: int | None = None
    """Export the expert of this rank; 1 is the best."""
    merge: int | None = None
    """Export the merge of the best so many experts."""


_SHORT = {"majority": "majority_vote", "weighted": "weighted_vote"}


def combine_names(text: str | None) -> list[str] | None:
    """Reads --vote: names of combine rules, or shorter ones for votes; None is the run's own."""
    if text is None:
        return None
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise ArgumentError(f"--vote {text!r} names no rule; use majority, weighted, mean, ...")
    return [_SHORT.get(name, name) for name in names]


def split_tasks(
    words: list[str], known: tuple[str, ...]
) -> tuple[dict[str, str], list[str], dict[str, list[str]]]:
    """Reads TASK or NAME=TASK ..., options for all, and options --NAME.OPTION for one.

    Returns:
      (name → task, words for every task, name → words for it alone).
    """
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    named: dict[str, str] = {}
    for word in words[:count]:
        name, _, task = word.rpartition("=")
        if task not in known:
            raise ArgumentError(f"unknown task {task!r}; choose one of: {', '.join(known)}")
        if (name or task) in named:
            raise ArgumentError(
                f"{name or task} is there twice; give one of them a name: other={task}"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name if "=" in word else task):
            raise ArgumentError(f"name {name!r} must be of letters, digits, - and _")
        named[name or task] = task
    if not named:
        raise ArgumentError("thicket density needs tasks first; see thicket density --help")
    common: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in named}
    place = common
    for word in words[count:]:
        if word.startswith("--"):
            name, dot, option = word[2:].partition(".")
            place = common
            if dot and "=" not in name:
                if name not in own:
                    raise ArgumentError(
                        f"{word} names {name!r}, which is none of: {', '.join(named)}"
                    )
                place, word = own[name], f"--{option}"
        place.append(word)
    return named, common, own


def parse(kind: Any, words: list[str], prog: str) -> Any:
    """Parses options with tyro; a parse error is one line."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _lists(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        if info.type == tuple[int, ...]:
            return _comma_list(int)
        return _comma_list(float) if info.type == tuple[float, ...] else None

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            # Without a word None, an optional flag is --chat and --no-chat.
            config = (tyro.conf.DisallowNone,)
            return tyro.cli(kind, args=words, prog=prog, registry=registry, config=config)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise Help from None
        raise ArgumentError(_one_line(errors.getvalue(), prog)) from None


def _comma_list(item: type) -> Any:
    import tyro

    def read(words: list[str]) -> tuple:
        try:
            return tuple(item(word) for word in words[0].split(",") if word.strip())
        except ValueError:
            raise ValueError(
                f"{words[0]!r} is not a comma-separated list of {item.__name__}s"
            ) from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{item.__name__.upper()},...",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(str(x) for x in value)],
    )


class Help(Exception):  # noqa: N818
    """Help was asked for and printed."""


def _one_line(text: str, prog: str) -> str:
    """Reduces tyro's message to its words: no frame (drawn, or of dashes), title or help text."""
    lines = text.splitlines()
    framed = text.lstrip().startswith("╭")
    inside = [line.strip("│╰╯─ ") for line in lines if not line.startswith("╭")]
    words = " ".join(" ".join(re.sub(r"^ *-{4,} *$", "─", line) for line in inside).split())
    if not framed:
        words = words.partition("─")[2]
    words = re.sub(r"─ *Perhaps you meant: (--[\w-]+)", r"; perhaps you meant \1 ─", words)
    words = re.split(r"Argument helptext|For full helptext|─", words)[0]
    words = re.sub(r"Perhaps you meant: (--[\w-]+).*", r"perhaps you meant \1", words)
    return f"{words.strip().rstrip('.')}; see {prog} --help"


def block_size(text: str) -> int | str:
    """Reads --block-size."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(f"--block-size {text} must be a whole number or auto") from None
