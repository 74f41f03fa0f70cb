"""What all decoding is made of: caches of one shape, a shared prefix, tokens chosen and ended.

Shapes: B rows, F tokens of the shared prefix, V tokens of the vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.text.cache import Around, Cache, empty_cache
from thicket_jax.text.choosing import next_tokens
from thicket_jax.text.config import Config
from thicket_jax.text.model import hidden, logits


@dataclasses.dataclass(frozen=True)
class Passes:
    """How a model is run; static, and equal for equal settings.

    Attributes:
      config: the model's.
      max_tokens: new tokens of a row at most.
      dtype: of the parameters, and of the cache.
      unroll: layers as code of their own, or as a scan; see `model.forward`.
      prefix: length of what all prompts begin with, F.
    """

    config: Config
    max_tokens: int
    dtype: str
    unroll: bool | None
    prefix: int

    @property
    def filler(self) -> int:
        """The token that stands behind a row's end."""
        return self.config.eos_ids[0] if self.config.eos_ids else 0

    def cache(self, rows: int, slots: int) -> Cache:
        """Returns an empty cache."""
        return empty_cache(self.config, rows, slots, self.dtype, self.unroll)

    def shared(self, params: Any, tokens: jax.Array, start: jax.Array) -> Any:
        """Returns keys and values of the prefix, run once; {} where there is none.

        Args:
          params: the expert's.
          tokens: int32 [B, P], prompts padded left.
          start: int32 [B], the index of each one's first token.
        """
        F = self.prefix
        if not F:
            return {}
        row = jnp.argmin(start)  # the longest: never a filler
        own = jax.lax.dynamic_slice(tokens, (row, start[row]), (1, F))
        slots = jnp.arange(F, dtype=jnp.int32)
        mask = (slots[None] <= slots[:, None])[None]
        around = self.around({}, tokens)
        cache = self.cache(1, F)
        _, cache = hidden(self.config, params, own, slots[None], cache, mask, around=around)
        return {name: cache[name] for name in ("keys", "values")}

    def behind(self, batch: Any) -> tuple[jax.Array, jax.Array]:
        """Returns what the prompts have behind the prefix: tokens [..., P - F], and their start."""
        tokens = batch["tokens"][..., self.prefix :]
        return tokens, jnp.minimum(batch["start"], tokens.shape[-1])

    def around(self, shared: Any, tokens: jax.Array, ring: bool = False) -> Around:
        """Returns what is around a cache of prompts int32 [B, P]."""
        return Around(shared, ring, tokens.shape[-1] + self.max_tokens)

    def run(
        self, params: Any, tokens: Any, positions: Any, cache: Cache, mask: Any, around: Around
    ) -> tuple[jax.Array, Cache]:
        """Runs tokens [B, S]; returns the last layer's states [B, S, D], and the cache."""
        positions = positions + self.prefix
        return hidden(self.config, params, tokens, positions, cache, mask, around=around)

    def choose(
        self, params: Any, states: Any, batch: Any, draw: Any, step: Any, ended: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns each row's next token, whether it has ended, and whether its logits are finite.

        Args:
          params: the expert's.
          states: [B, D], of each row's last token.
          batch: what `next_tokens` takes.
          draw, step: likewise.
          ended: bool [B], rows that have ended before: they are filled up.
        """
        found = logits(self.config, params, states[:, None])[:, 0]
        chosen = jnp.where(ended, self.filler, next_tokens(found, batch, draw, step))
        stops = [chosen == end for end in self.config.eos_ids]
        stop = functools.reduce(jnp.logical_or, stops, jnp.zeros_like(ended))
        return chosen, ended | stop, jnp.isfinite(found.max(-1)) | ended
