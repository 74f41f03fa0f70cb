"""Accelerators that need not be here: what they are, and the compilers that know them.

Peaks are the vendors' published ones, of one chip: bf16 operations without sparsity, memory
bandwidth, memory. Cloud TPU's system architecture pages (v5e, v5p, v6e); NVIDIA's H100 SXM data
sheet.
"""

import contextlib
import dataclasses
import os
import unittest.mock
from collections.abc import Iterator

import jax

from thicket_jax.errors import ArgumentError

_PACKAGES = {
    "tpu": 'pip install ".[aot]" brings it, libtpu',
    "cuda": "jax-cuda12-plugin with NVIDIA's wheels, some 3 GB, has it; in its own environment",
}


@dataclasses.dataclass(frozen=True)
class Chips:
    """So many chips of one kind.

    Attributes:
      name: as people say it.
      platform: `tpu` or `cuda`.
      topology: as the compiler is asked for it.
      count: of chips.
      flops: operations a second in bfloat16, of a chip.
      bandwidth: bytes a second between a chip and its memory.
      memory: bytes of a chip.
    """

    name: str
    platform: str
    topology: str
    count: int
    flops: float
    bandwidth: float
    memory: float


_V5E = {"platform": "tpu", "flops": 197e12, "bandwidth": 819e9, "memory": 16 * 2.0**30}
_V6E = {"platform": "tpu", "flops": 918e12, "bandwidth": 1640e9, "memory": 32 * 2.0**30}
_V5P = {"platform": "tpu", "flops": 459e12, "bandwidth": 2765e9, "memory": 95 * 2.0**30}
_H100 = {"platform": "cuda", "flops": 989e12, "bandwidth": 3350e9, "memory": 80e9}

ALL = (
    Chips("v5e-4", topology="v5e:2x2", count=4, **_V5E),  # type: ignore[arg-type]
    Chips("v5e-16", topology="v5e:4x4", count=16, **_V5E),  # type: ignore[arg-type]
    Chips("v6e-256", topology="v6e:16x16", count=256, **_V6E),  # type: ignore[arg-type]
    Chips("v5p-64", topology="v5p:4x4x4", count=64, **_V5P),  # type: ignore[arg-type]
    Chips("H100", topology="1x1x1", count=1, **_H100),  # type: ignore[arg-type]
)

# An H100 SXM as its data sheet and NVIDIA's tuning guide for Hopper describe it.
_H100_TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3350000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 80000000000
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
"""


def devices(chips: Chips) -> list[jax.Device]:
    """Returns the devices of chips that are not here, to compile for.

    Raises:
      ArgumentError: the compiler for them is not installed; the line says which package it is in.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no question to a cloud
    from jax.experimental import topologies

    try:
        if chips.platform == "tpu":
            found = topologies.get_topology_desc(platform="tpu", topology_name=chips.topology)
        else:
            found = topologies.get_topology_desc(
                "h100", "cuda", target_config=_H100_TARGET, topology=chips.topology
            )
    except Exception as error:
        raise ArgumentError(
            f"{chips.name}: there is no compiler for it ({' '.join(str(error).split())[:160]}); "
            + _PACKAGES[chips.platform]
        ) from error
    return list(found.devices)


@contextlib.contextmanager
def compiling_for(chips: Chips) -> Iterator[None]:
    """What asks JAX for its platform is told that of the chips: the decoder does."""
    name = "gpu" if chips.platform == "cuda" else chips.platform
    with unittest.mock.patch.object(jax, "default_backend", lambda: name):
        yield
