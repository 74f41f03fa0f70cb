"""What costs nothing to find out, before a device is touched or a file is read."""

import re
from typing import TYPE_CHECKING, Any

from thicket_jax.cli.options import Machine
from thicket_jax.cli.parsing import read_block_size
from thicket_jax.errors import ArgumentError, check_choice, check_count
from thicket_jax.tasks import task

if TYPE_CHECKING:
    from thicket_jax.selection.rounds import Rule

_DEVICES_PER_CORE = 8


def check_search(options: Any, machine: Machine, rule: "Rule | None" = None) -> None:
    """Raises `ArgumentError` for a search that cannot be.

    Args:
      options: the task's, resolved.
      machine: where and how it runs.
      rule: how experts are selected.
    """
    options.check()
    check_machine(machine)
    if rule is not None:
        rule.piece(options.num, options.train_items, max(options.k))


def check_machine(machine: Machine) -> None:
    """Raises `ArgumentError` for a machine that cannot be."""
    from thicket_jax.mapping.devices import BACKENDS

    check_choice("backend", machine.backend, BACKENDS)
    read_block_size(machine.block_size)
    most = _DEVICES_PER_CORE * task.cores()
    if not 0 <= machine.cpu_devices <= most:
        raise ArgumentError(
            f"--cpu-devices {machine.cpu_devices} must be 0 to {most}, {_DEVICES_PER_CORE} for "
            "each core here"
        )
    _check_processes(machine)


def _check_processes(machine: Machine) -> None:
    """Raises `ArgumentError` unless processes can be connected as the options say, or are one."""
    named = (machine.coordinator, machine.processes, machine.process_id)
    several = machine.distributed or any(value is not None for value in named)
    if machine.distributed and any(value is not None for value in named):
        raise ArgumentError(
            "--distributed finds the processes by itself; leave out --coordinator, --processes "
            "and --process-id"
        )
    if machine.distributed or not several:
        return
    if machine.coordinator is None or machine.processes is None or machine.process_id is None:
        raise ArgumentError("--coordinator, --processes and --process-id go together")
    check_count("processes", machine.processes)
    if not 0 <= machine.process_id < machine.processes:
        raise ArgumentError(
            f"--process-id {machine.process_id} must be 0 to {machine.processes - 1}"
        )
    port = re.fullmatch(r"\S+:(\d{1,5})", machine.coordinator)
    if port is None or not 0 < int(port[1]) < 2**16:
        raise ArgumentError(
            f"--coordinator {machine.coordinator!r} must be an address and a port, host:port"
        )
    if machine.backend == "none" and machine.processes > 1:
        raise ArgumentError(
            f"--backend none leaves {machine.processes - 1} of --processes {machine.processes} "
            "without work; use pmap or shard_map"
        )
