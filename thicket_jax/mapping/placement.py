"""How a function of one expert is mapped over many: where, how many at once, and how they move."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.errors import ArgumentError, check_count, check_flag, shown
from thicket_jax.mapping.devices import Mapper, make_mapper


@dataclasses.dataclass(frozen=True)
class Placement:
    """What scoring, predicting and calibrating hand on instead of four keywords.

    Attributes:
      mapper: over which devices.
      block_size: experts per vmap, b; or `"auto"`: a program for one expert is compiled, its memory
        analysis read, and the largest block taken whose temporaries fit the device (an
        accelerator's free memory; a CPU core's own cache, where larger blocks are slower). It does
        not depend on the number of experts, so that any population has the same program.
      most: with `"auto"`, experts in one block on all devices at most, so that a caller can log
        that often; None: no bound.
      stream: whether a leaf is perturbed where it is used, and dropped after; see `tj.score`.
    """

    mapper: Mapper
    block_size: int | str = "auto"
    most: int | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        """Refuses a block size that is none."""
        if not isinstance(self.block_size, str) or self.block_size != "auto":
            check_count("block_size", self.block_size)
        check_flag("stream", self.stream)


def place(
    params: Any,
    *,
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    block_size: int | str = "auto",
    most: int | None = None,
    stream: bool = False,
) -> Placement:
    """Returns the placement that the options of a public function name.

    Args:
      params: θ; where it is sharded, the backend must keep it so.
      devices, backend: as in `make_mapper`.
      block_size, most, stream: as in `Placement`.

    Raises:
      ArgumentError: an option that cannot work.
    """
    if devices is not None and not (
        isinstance(devices, Sequence | np.ndarray)
        and all(isinstance(x, jax.Device) for x in devices)
    ):
        raise ArgumentError(
            f"devices={shown(devices)} must be a list of devices, such as jax.devices()[:1]"
        )
    return Placement(make_mapper(devices, backend, params), block_size, most, stream)
