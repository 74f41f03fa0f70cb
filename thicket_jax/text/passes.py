"""What all decoding is made of: caches of one shape, a shared prefix, tokens chosen and ended.

Shapes: B rows, F tokens of the shared prefix, V tokens of the vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from thicket_jax.text.cache import Around, Cache, empty_cache
from thicket_jax.text.choosing import first_largest, next_tokens
from thicket_jax.text.config import Config
from thicket_jax.text.model import hidden, logits
from thicket_jax.text.parts import parts

LOGITS_BYTES = 2**22  # bytes of logits of an expert that are held at once
_ACTIVATIONS = 2**24  # bytes that a layer makes of an expert's prompts, held at once


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
        chosen, fine = self._next(params, states, batch, draw, step)
        chosen = jnp.where(ended, self.filler, chosen)
        stops = [chosen == end for end in self.config.eos_ids]
        stop = functools.reduce(jnp.logical_or, stops, jnp.zeros_like(ended))
        return chosen, ended | stop, fine | ended

    def _next(
        self, params: Any, states: jax.Array, batch: Any, draw: Any, step: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Returns each row's next token, and whether its logits are finite.

        Logits [B, V] are held only where they are small: else tokens are chosen from parts of the
        vocabulary, or, where they are drawn, for some rows after others.
        """
        B, V = len(states), self.config.vocab_size
        held = 4 * B * V
        if held <= LOGITS_BYTES:
            found = logits(self.config, params, states[:, None])[:, 0]
            return next_tokens(found, batch, draw, step), jnp.isfinite(found.max(-1))

        def greedy() -> tuple[jax.Array, jax.Array]:
            count = -(-held // LOGITS_BYTES)
            width = -(-V // count)

            def part(index: Any, best: Any) -> Any:
                first = jnp.minimum(index * width, V - width)
                found = logits(self.config, params, states[:, None], (first, width))[:, 0]
                top = found.max(-1)
                token = jnp.where(top > best[1], first + first_largest(found), best[0])
                return token, jnp.maximum(top, best[1])

            least = jnp.full(B, -jnp.inf, jnp.float32)
            token, top = jax.lax.fori_loop(0, count, part, (jnp.zeros(B, jnp.int32), least))
            return token, jnp.isfinite(top)

        def drawn() -> tuple[jax.Array, jax.Array]:
            groups = parts(B, held, LOGITS_BYTES)
            rows = states, batch["row"], jnp.broadcast_to(step, (B,))

            def some(row: Any) -> tuple[jax.Array, jax.Array]:
                found = logits(self.config, params, row[0][:, None])[:, 0]
                chosen = next_tokens(found, {**batch, "row": row[1]}, draw, row[2])
                return chosen, jnp.isfinite(found.max(-1))

            split = jax.tree.map(lambda x: x.reshape(groups, B // groups, *x.shape[1:]), rows)
            return jax.tree.map(lambda x: x.reshape(B), jax.lax.map(some, split))

        return jax.lax.cond(batch["temperature"] > 0, drawn, greedy)

    def groups(self, rows: int, tokens: int) -> int:
        """Returns in how many groups of rows, one after another, prompts are run.

        So that what a layer makes of [rows, tokens] does not take more than caches do.
        """
        config = self.config
        mixture = config.mixture
        inner = mixture.count * mixture.size if mixture else config.intermediate_size
        wide = 2 * inner + 4 * config.hidden_size
        return parts(rows, 4 * rows * tokens * wide, _ACTIVATIONS)
