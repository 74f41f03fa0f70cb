"""Mapping over devices, placement, gathering and memory: the only file that knows devices.

A `Mapper` spreads one program over D devices: shared arguments (parameters, data) are replicated
once, split arguments and outputs have a leading axis D. Nothing crosses between devices inside a
program; scores cross between processes when they are gathered.
"""

import contextlib
import dataclasses
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thicket_jax.errors import ArgumentError, PeerError, check_choice
from thicket_jax.experts.arguments import in_device_memory

BACKENDS = ("pmap", "shard_map", "none")
_AXIS = "experts"
_ACCELERATOR_SHARE = 0.8  # of the free memory; the rest is for fragmentation and the runtime
_DEFAULT_CACHE_BYTES = 2**21


@dataclasses.dataclass(frozen=True)
class Mapper:
    """How one program runs over devices. Hashable, so that compiled programs can be kept.

    Attributes:
      devices: D devices, ordered by process; one for the backend `none`.
      backend: `pmap`, `shard_map` or `none`. The first two are one program, that of `jax.pmap`,
        which is written out: `jax.pmap` itself keeps every function that it has ever mapped, and
        the arrays that it closes over.
      mesh: over which the caller has sharded parameters or data, with `none`; or None.
      allowed: over which devices the caller may spread an array, with `none`.
    """

    devices: tuple[jax.Device, ...]
    backend: str
    mesh: Mesh | None = None
    allowed: tuple[jax.Device, ...] = ()

    def around(self, data: Any) -> "Mapper":
        """Returns the mapper that leaves data sharded where the caller has sharded it.

        With the backend `none`, over the devices that it was given; elsewhere data are replicated.
        """
        if self.backend != "none" or self.mesh is not None:
            return self
        for leaf in filter(is_sharded, jax.tree.leaves(data)):
            mesh = getattr(leaf.sharding, "mesh", None)
            if mesh is not None and leaf.sharding.device_set <= set(self.allowed):
                return dataclasses.replace(self, mesh=mesh)
        return self

    @property
    def count(self) -> int:
        """The number of devices that experts are split over, D."""
        return len(self.devices)

    def _sharding(self, split: bool) -> jax.sharding.Sharding:
        if self.mesh is not None:
            return NamedSharding(self.mesh, PartitionSpec())
        if self.backend == "none":
            return jax.sharding.SingleDeviceSharding(self.devices[0])
        mesh = Mesh(np.asarray(self.devices), (_AXIS,))
        return NamedSharding(mesh, PartitionSpec(_AXIS) if split else PartitionSpec())

    def replicate(self, tree: Any) -> Any:
        """Puts every leaf on every device, once; leaves that are already there are not copied.

        With the backend `none`, arrays that the caller has sharded over the mesh stay sharded.
        """
        return jax.tree.map(lambda leaf: self._put(leaf, split=False), tree)

    def split(self, tree: Any) -> Any:
        """Puts leaves [D, ...] on the devices, one row each."""
        return jax.tree.map(lambda leaf: self._put(leaf, split=True), tree)

    def hand(self, tree: Any, *, split: bool) -> Any:
        """Returns small numpy leaves as a compiled program takes them: [D, ...], or for all alike.

        In one process the program itself puts them where it wants them, and does so faster; where
        the user forbids that by a transfer guard, they are put there.
        """
        guarded = getattr(jax.config, "jax_transfer_guard_host_to_device", None)
        if jax.process_count() == 1 and self.mesh is None and guarded in (None, "allow"):
            return tree
        return self.split(tree) if split else self.replicate(tree)

    def _put(self, leaf: Any, split: bool) -> Any:
        sharding = self._sharding(split)
        if isinstance(leaf, jax.Array):
            leaf = in_device_memory(leaf)
            if self._stays(leaf) or leaf.sharding == sharding:
                return leaf
            if jax.process_count() == 1:
                return jax.device_put(leaf, sharding)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                words = self._put(np.asarray(jax.random.key_data(leaf)), split)
                return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)
        host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    def _stays(self, leaf: jax.Array) -> bool:
        """Whether the caller has sharded an array where this mapper can take it as it is."""
        if not is_sharded(leaf) or jax.process_count() > 1:
            return is_sharded(leaf)
        return self.mesh is not None and getattr(leaf.sharding, "mesh", None) == self.mesh

    def compile(self, program: Callable[..., Any], shared: tuple, split: tuple) -> Any:
        """Compiles `program(*shared, *split_row) -> tree` for placed example arguments.

        Returns:
          A compiled program that takes (*shared, *split) with a leading axis D on split and on
          every output.
        """
        mapped = _one_row(program, len(shared))
        if self.backend != "none":
            specs = (PartitionSpec(),) * len(shared) + (PartitionSpec(_AXIS),) * len(split)
            mapped = jax.shard_map(
                mapped,
                mesh=Mesh(np.asarray(self.devices), (_AXIS,)),
                in_specs=specs,
                out_specs=PartitionSpec(_AXIS),
                check_vma=False,
            )
        return jax.jit(mapped).lower(*shared, *split).compile()

    def gather(self, tree: Any, error: Exception | None = None) -> Any:
        """Returns outputs [D, ...] as numpy on every process; raises what the device raised.

        With several processes, all take part: an out-of-memory error on one is raised on all.

        Args:
          tree: outputs of a launched program; unused where its launch failed.
          error: what the launch raised, if it did.
        """
        local: Any = None
        if error is None:
            try:
                local = jax.tree.map(_local_rows, tree)
            except jax.errors.JaxRuntimeError as caught:
                error = caught
        if jax.process_count() == 1 or self.backend == "none":
            if error is not None:
                raise error
            return local
        with _waiting():
            failed = multihost_utils.process_allgather(np.asarray(error is not None))
        if np.any(failed):
            raise error or jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: on another process")
        with _waiting():
            everywhere = multihost_utils.process_allgather(local)
        return jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *leaf.shape[2:])), everywhere)


def _one_row(program: Callable[..., Any], num_shared: int) -> Callable[..., Any]:
    """Adapts a program on rows to arguments and outputs that keep a leading axis of one."""

    def adapted(*arguments: Any) -> Any:
        rows = jax.tree.map(lambda leaf: leaf[0], arguments[num_shared:])
        return jax.tree.map(lambda leaf: leaf[None], program(*arguments[:num_shared], *rows))

    return adapted


def _local_rows(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def is_sharded(leaf: Any) -> bool:
    """Whether an array lives in parts on several devices."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated


def make_mapper(
    devices: Sequence[jax.Device] | None = None, backend: str = "pmap", params: Any = None
) -> Mapper:
    """Returns the mapper for `devices` (default: all visible) and `backend`.

    One device needs no mapping, so `pmap` and `shard_map` become `none` there.

    Raises:
      ArgumentError: an unknown backend, no devices, parameters that are sharded while experts
        should be split, or `none` with several processes.
    """
    check_choice("backend", backend, BACKENDS)
    chosen = list(jax.devices() if devices is None else devices)
    if not chosen:
        raise ArgumentError("devices is empty; leave it out to use every visible device")
    chosen.sort(key=lambda device: (device.process_index, device.id))
    if jax.process_count() > 1 and (backend == "none" or len(chosen) == 1):
        raise ArgumentError(
            f"backend={backend!r} on {len(chosen)} device(s) leaves other processes without work; "
            f"{jax.process_count()} processes are connected, use pmap or shard_map on all devices"
        )
    sharded = [leaf.sharding for leaf in jax.tree.leaves(params) if is_sharded(leaf)]
    if sharded and backend != "none" and len(chosen) > 1:
        raise ArgumentError(
            f"params are sharded over devices, but backend={backend!r} replicates them; pass "
            "backend='none' to keep them sharded"
        )
    if backend == "none" or len(chosen) == 1:
        local = [d for d in chosen if d.process_index == jax.process_index()]
        meshes = {getattr(sharding, "mesh", None) for sharding in sharded}
        if len(meshes) > 1 or meshes == {None}:
            raise ArgumentError(
                f"params are sharded over {len(meshes)} meshes, or without one; put all of them on "
                "one mesh, with jax.device_put and NamedSharding"
            )
        return Mapper((local[0],), "none", next(iter(meshes), None), tuple(chosen))
    return Mapper(tuple(chosen), backend)


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Whatever an exchange with the other processes raises says that one of them ended."""
    try:
        yield
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PeerError(f"another process ended ({said})") from error


def from_first(value: Any) -> Any:
    """Returns process 0's value on every process; each passes its own, others' are ignored.

    The value is pickled; it must be small and made by this program.
    """
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    with _waiting():
        size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(data), np.int32)))
        buffer = np.zeros(size, np.uint8)
        if jax.process_index() == 0:
            buffer[:] = data
        found = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
    return pickle.loads(found.tobytes())


def of_everyone(data: bytes) -> list[bytes]:
    """Returns what every process passes, by process, on every process."""
    if jax.process_count() == 1:
        return [data]
    own = np.frombuffer(data, np.uint8)
    with _waiting():
        lengths = np.asarray(multihost_utils.process_allgather(np.asarray(len(own), np.int32)))
        padded = np.zeros(int(lengths.max()), np.uint8)
        padded[: len(own)] = own
        rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def launch(program: Any, *arguments: Any) -> Any:
    """Starts a compiled program; the one place where a device can run out of memory.

    A NaN in what it returns is an expert's, who has failed, and no error, also where the user
    looks for NaNs; to see where one comes from, `jax.disable_jit` runs expert after expert.
    """
    with nan_allowed():
        return program(*arguments)


@contextlib.contextmanager
def nan_allowed() -> Iterator[None]:
    """Computes what may hold NaN for good, whether or not JAX is told to look for it."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a runtime error says that the device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
    )


def free_bytes(device: jax.Device) -> int:
    """Returns the memory that `device` has free, in bytes; on a CPU the machine's."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_bytes(device: jax.Device) -> int:
    """Returns the memory that this program may use on `device`, in bytes; on a CPU what is free."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else free_bytes(device)


def working_bytes(device: jax.Device) -> int:
    """Returns the bytes that a block's temporaries may take on `device`.

    An accelerator is fastest with the largest block that its free memory holds. A CPU is fastest
    while a block stays in the core's own (level 2) cache; larger blocks only add memory traffic.
    """
    if device.platform != "cpu":
        return int(free_bytes(device) * _ACCELERATOR_SHARE)
    try:
        cache = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):
        cache = 0
    return cache if cache > 0 else _DEFAULT_CACHE_BYTES


def program_bytes(compiled: Any) -> tuple[int, int]:
    """Returns (outputs, temporaries) of a compiled program, bytes per device."""
    stats = compiled.memory_analysis()
    if stats is None:
        return 0, 0
    return int(stats.output_size_in_bytes), int(stats.temp_size_in_bytes)
