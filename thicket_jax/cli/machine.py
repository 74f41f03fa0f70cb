"""What a command needs before it runs: devices and processes, and a stored run's options."""

import contextlib
import dataclasses
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from thicket_jax.cli.options import Machine
from thicket_jax.errors import ArgumentError, PeerError, RunError, ThicketError
from thicket_jax.tasks import registry, task

_CPU_DEVICES = 8
_PATIENCE = 300.0  # seconds for process 0 to start, as JAX has for all others
_RELATIVE = "run:"  # before an option that is a path from the run directory
_PATH = re.compile(r"(^|[\s=\"'(])/(?:[^\s\"',:;()/]+/)+([^\s\"',:;()/]+)")


def start_devices(machine: Machine) -> None:
    """Splits a CPU into devices and connects processes, before anything touches a device.

    `checks.check_machine` has found nothing wrong.
    """
    import jax

    if machine.backend != "none":
        count = machine.cpu_devices or min(len(os.sched_getaffinity(0)), _CPU_DEVICES)
        # Refused once devices exist, as in a program that calls main() after using JAX.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    # Its handler would take SIGTERM from the command.
    jax.config.update("jax_enable_preemption_service", False)
    if jax.distributed.is_initialized():
        return
    if machine.distributed:
        jax.distributed.initialize()
    elif machine.coordinator is not None:
        if machine.process_id:
            _await(machine.coordinator)
        jax.distributed.initialize(machine.coordinator, machine.processes, machine.process_id)
    found = jax.local_devices()
    asked = machine.cpu_devices if machine.backend != "none" else 0  # which takes one device
    if asked and (found[0].platform != "cpu" or len(found) != asked):
        raise ArgumentError(
            f"--cpu-devices {asked} cannot be had: JAX has {len(found)} "
            f"{found[0].platform} device(s) here already; leave it out"
        )


def _await(coordinator: str) -> None:
    """Waits until process 0 answers: where it never does, JAX ends without a word to read."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise RunError(
                    f"process 0 does not answer at --coordinator {coordinator} ({reason(error)}); "
                    "start it there, or name the host:port of the one that runs"
                ) from None
        time.sleep(0.1)


def with_cache(options: Any) -> Any:
    """Returns a task's options with the folder for base models and compiled programs filled in.

    It is part of no record. Without --cache it is that of the XDG Base Directory Specification, in
    which a path that is not absolute does not count.
    """
    user = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if options.cache is not None or not user.is_absolute():
        return options
    return dataclasses.replace(options, cache=str(user / task.CACHE))


_OWN = ("process_id", "coordinator", "quiet")  # what a process may have for itself


def facts_of(name: str, options: Any, machine: Machine, rule: Any = None) -> dict[str, Any]:
    """What every process of a command must be told alike: task, options, selection, machine."""
    told = {key: x for key, x in dataclasses.asdict(machine).items() if key not in _OWN}
    return {
        "task": name,
        "options": dataclasses.asdict(options),
        "select": None if rule is None else rule.to_json(),
        "machine": told,
    }


class WorkError(ThicketError):
    """The system failed in the middle of work; what was kept stays.

    `others` says whether other processes are connected: at its end JAX waits for them, minutes
    where one of them has died, and then aborts.
    """

    def __init__(self, text: str, others: bool) -> None:
        """Takes the line to say."""
        super().__init__(text)
        self.others = others


def reason(error: Exception) -> str:
    """What the system said, in one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def working(hint: str) -> Iterator[None]:
    """What the system refuses inside is a `WorkError`; `hint` says what is kept."""
    import jax

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WorkError(f"{reason(error)}; {hint}", jax.process_count() > 1) from error
    except PeerError as error:
        raise WorkError(f"{error}; {hint}", True) from error


def recorded(options: Mapping[str, Any], run_dir: pathlib.Path) -> dict[str, Any]:
    """Options as config.json has them: absolute paths are relative to the run, `run:../model`."""
    here = run_dir.resolve()

    def relative(value: Any) -> Any:
        if isinstance(value, str) and os.path.isabs(value):
            return _RELATIVE + os.path.relpath(value, here)
        return value

    return {name: relative(value) for name, value in options.items()}


def without_paths(value: Any) -> Any:
    """JSON values in which what is an absolute path has its name alone."""
    if isinstance(value, Mapping):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return _PATH.sub(r"\1\2", value) if isinstance(value, str) else value


def _absolute(value: Any, run_dir: pathlib.Path) -> Any:
    """The option that `recorded` wrote; an older release wrote paths as they are."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and value.startswith(_RELATIVE):
        return os.path.normpath(run_dir.resolve() / value.removeprefix(_RELATIVE))
    return value


def _check_grader(spec: str, run_dir: pathlib.Path) -> None:
    """Raises `RunError` where a grader lies inside the run directory: a run brings no code."""
    place = spec.rpartition(":")[0]
    path = pathlib.Path(place if place.endswith(".py") else place.split(".")[0])
    if not place:
        return
    for candidate in (path, path.with_suffix(".py")):
        if candidate.exists() and candidate.resolve().is_relative_to(run_dir.resolve()):
            raise RunError(
                f"grader {spec!r} lies inside {run_dir} and is not imported; move it elsewhere "
                "and start a new run"
            )


def tell_of_digests(run_dir: pathlib.Path, tell: Callable[[str], None]) -> None:
    """Says so where a run has no digests by which damage would be found."""
    from thicket_jax.runs import digests

    if digests.read(run_dir) is None:
        tell(
            f"{run_dir} carries no digests, as an older release made it: its ranks and means are "
            "checked, no other damage is found"
        )


def stored_options(run_dir: pathlib.Path, config: dict[str, Any]) -> Any:
    """Rebuilds a task's options from config.json."""
    if config.get("task") not in registry.REGISTRY:
        raise RunError(
            f"{run_dir} is a run of {config.get('task')!r}, which is no task of the command line; "
            "use tj.randopt with resume=True, or thicket_jax.runs.export, in the program that made "
            "it"
        )
    stored = {key: _absolute(value, run_dir) for key, value in config["options"].items()}
    _check_grader(str(stored.get("grader", "")), run_dir)
    try:
        return registry.module(config["task"]).Options(**stored)
    except TypeError as error:
        raise RunError(
            f"{run_dir / 'config.json'} has options that this release does not know: {error}"
        ) from None
