"""A checkpoint folder → a model and its parameters, and parameters → a checkpoint folder."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.errors import check_choice
from thicket_jax.experts.leaves import leaf_names, leaf_rows
from thicket_jax.text.checkpoints import load_tensors, save_checkpoint
from thicket_jax.text.config import DTYPES, Config, read_config
from thicket_jax.text.model import abstract


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pretrained language model.

    `model.forward(config, params, ...)` runs it; `params` is what experts are perturbations of. The
    path of a leaf, or of a slice of the layers' stack, is its tensor's name in the checkpoint.

    Attributes:
      folder: of the checkpoint.
      config: its architecture.
      dtype: of the parameters, and of what is computed with them.
      params: the parameters, on the device.
    """

    folder: pathlib.Path
    config: Config
    dtype: str
    params: dict[str, Any]

    @property
    def description(self) -> str:
        """One line: name, family, size and dtype."""
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return f"{self.folder.name} ({self.config.family}, {size:,} parameters, {self.dtype})"


def load(folder: str | os.PathLike[str], precision: str = "auto") -> Pretrained:
    """Loads a Hugging Face checkpoint folder: config.json and safetensors.

    Tensors go to the device one by one, and layers into stacks there. Memory: the parameters and
    one stack on the device, one tensor on the host.

    Args:
      folder: of one of `families.FAMILIES`.
      precision: `auto`, the checkpoint's own dtype, or `float32`, `bfloat16` or `float16`.

    Raises:
      DataError: what is missing, damaged or not implemented, in one line.
      ArgumentError: an unknown precision.
    """
    path = pathlib.Path(folder).expanduser().resolve()
    check_choice("precision", precision, ("auto", *DTYPES))
    config = read_config(path)
    dtype = config.dtype if precision == "auto" else precision
    shapes = abstract(config, dtype)
    wanted = {name: tuple(row.shape) for name, row in leaf_rows(shapes)}
    tied = ("lm_head.weight",) if config.tied else ()
    tensors = load_tensors(path, wanted, dtype, tied=tied)
    leaves = [
        _stacked([tensors.pop(name) for name in rows], leaf.shape[:depth])
        for (_, rows, depth), leaf in zip(leaf_names(shapes), jax.tree.leaves(shapes), strict=True)
    ]
    return Pretrained(path, config, dtype, jax.tree.unflatten(jax.tree.structure(shapes), leaves))


def _stacked(rows: list[jax.Array], lengths: tuple[int, ...]) -> jax.Array:
    """Returns rows as a stack of these lengths, stack by stack: small programs, compiled once."""
    for length in reversed(lengths):
        groups = [rows[i : i + length] for i in range(0, len(rows), length)]
        rows.clear()
        while groups:
            rows.append(jnp.stack(groups.pop(0)))
    return rows[0]


def save(
    base: str | os.PathLike[str], to: str | os.PathLike[str], params: Any, notes: Mapping[str, Any]
) -> pathlib.Path:
    """Writes parameters as a complete checkpoint folder beside the base's config and tokenizer.

    Args:
      base: folder of the checkpoint that `params` are a variation of.
      to: the new folder; must not exist.
      params: as `load` returned them, perturbed or merged. Of several dtypes, all are written in
        float32, which holds them exactly; so `config.json` says.
      notes: JSON, kept as `thicket.json` in the folder: where the weights come from.

    Returns:
      The folder's absolute path. The bytes are those of `params`.
    """
    pairs = leaf_rows(params)
    if len({leaf.dtype for leaf in jax.tree.leaves(params)}) > 1:
        pairs = ((name, leaf.astype("float32")) for name, leaf in pairs)
    tied = read_config(pathlib.Path(base)).tied
    return save_checkpoint(base, to, pairs, notes=notes, tied=tied)
