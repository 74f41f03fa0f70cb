"""What the base's answers to the training items tell the decoder of experts': no score changes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from thicket_jax.tasks import task
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text.decode import Decode
from thicket_jax.text.pretrained import Pretrained


def hints(
    options: Options, decode: Decode, model: Pretrained, train: Mapping[str, Any], tell: task.Tell
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Decodes the base's answers, if `--draft` asks for them.

    Args:
      options: the task's.
      decode: the decoder of the run.
      model: the base.
      train: the training batch, [C, R].
      tell: told of what takes time.

    Returns:
      Entries of the training batch, and of a batch of that shape of whose answers nothing is known;
      see `decode.Batch`.
    """
    if options.draft == "none":
        return {}, {}
    tell("decoding the base's answers")
    out = jax.jit(decode)(model.params, dict(train), np.int32(0))
    tokens, ends = np.asarray(out["tokens"]), model.config.eos_ids
    if options.draft == "base":
        return {"draft": tokens}, {"draft": np.full_like(tokens, ends[0] if ends else 0)}
    stops = np.isin(tokens, ends)
    lengths = np.where(stops.any(-1), stops.argmax(-1) + 1, tokens.shape[-1]).astype(np.int32)
    return {"expected": lengths}, {"expected": np.zeros_like(lengths)}
