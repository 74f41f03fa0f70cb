"""What a command needs before it runs: devices and processes, and a stored run's options."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

from thicket_jax.cli.options import Machine
from thicket_jax.errors import ArgumentError, RunError
from thicket_jax.tasks import registry

_CPU_DEVICES = 8


def start_devices(machine: Machine) -> None:
    """Splits a CPU into devices and connects processes, before anything touches a device."""
    import jax

    if machine.cpu_devices < 0:
        raise ArgumentError(f"--cpu-devices {machine.cpu_devices} must be 0 or more")
    if machine.backend != "none":
        count = machine.cpu_devices or min(len(os.sched_getaffinity(0)), _CPU_DEVICES)
        # Refused once devices exist, as in a program that calls main() after using JAX.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    named = (machine.coordinator, machine.processes, machine.process_id)
    if machine.distributed and any(value is not None for value in named):
        raise ArgumentError(
            "--distributed finds the processes by itself; leave out --coordinator, --processes "
            "and --process-id"
        )
    if machine.distributed:
        jax.distributed.initialize()
    elif any(value is not None for value in named):
        if any(value is None for value in named):
            raise ArgumentError("--coordinator, --processes and --process-id go together")
        assert machine.processes is not None and machine.process_id is not None
        if not 0 <= machine.process_id < machine.processes:
            raise ArgumentError(
                f"--process-id {machine.process_id} must be 0 to {machine.processes - 1}"
            )
        jax.distributed.initialize(machine.coordinator, machine.processes, machine.process_id)


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
    stored = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config["options"].items()
    }
    try:
        return registry.module(config["task"]).Options(**stored)
    except TypeError as error:
        raise RunError(
            f"{run_dir / 'config.json'} has options that this release does not know: {error}"
        ) from None
