"""A queue of prompts on R slots: a row that has ended makes room for the next prompt.

All slots share a clock. At each step every row writes its new key and value at the clock's place in
a ring of Q + T slots, so that a step writes one slice, at an index common to all rows and experts.
A prompt that comes in is laid behind the clock; a row's state is how many tokens of its own are in
the ring, the last of them right behind the clock. Rotary places are in the keys: where a key lies
says nothing.

Prompts come in g at a time, but for their last tokens, which the next step runs. Those that come
together are of similar length: the longest answers first, where something is known of them, and the
longest prompts, since a long answer that begins last is waited for. When the queue is empty and a
quarter of the slots is enough for every expert, the rows that are left go on in as many.

Shapes: N prompts, R slots, Q prompt tokens behind the shared prefix, T new tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.text.cache import laid, on_cpu
from thicket_jax.text.common import any_expert, largest, of_experts
from thicket_jax.text.passes import Passes
from thicket_jax.text.prefill import drafted, prefill

_GROUPS = 8  # of slots that are refilled together
_ENOUGH = 0.8  # of the places of a refill, over all experts, from which on it is worth its pass
_LAST = 4  # what R is divided by for the rows that are left at the end
_FEW = 8  # slots, below which that is not worth a program of its own

State = dict[str, Any]
"""Of slots [R]: `which`, the prompt's number (N: none), `last`, its last token, `length`, its
tokens in the ring, `step`, its new tokens, `ended`. `keys` and `values`; `tokens` [N, T] and
`finite` [N], what comes out. `next` [], the place in the queue. Common to all experts: `clock` [],
a slot of the ring; `slot_steps` [], steps times slots so far."""


def group(rows: int) -> int:
    """Returns how many prompts come in together, g."""
    return -(-rows // _GROUPS)


def last_rows(rows: int) -> int:
    """Returns how many slots the last rows go on in; 0: in all of them."""
    return rows // _LAST if rows >= _FEW else 0


def slot_steps(lengths: np.ndarray, rows: int) -> int:
    """Returns how many slot-steps a block of experts takes, by the rules of `decode`.

    The share of them that is useful is `lengths.sum()` over it.

    Args:
      lengths: int [n, N], new tokens of every prompt, its end included, in the queue's order.
      rows: R, fewer than N.
    """
    n, N = lengths.shape
    g, last = group(rows), last_rows(rows)
    left, following, total = np.zeros((n, rows), int), np.zeros(n, int), 0
    while True:
        need = np.minimum(g, N - following)
        ready = np.minimum((left == 0).sum(1), need)
        running = int((left > 0).sum(1).max())
        if need.any() and (not running or ready.sum() >= np.float32(_ENOUGH) * need.sum()):
            for i, count in enumerate(ready):
                come = lengths[i, following[i] : following[i] + count]
                left[i, np.flatnonzero(left[i] == 0)[:count]] = come
            following += ready
        elif running:
            total += n * (last if not need.any() and running <= last else rows)
            left = np.maximum(left - 1, 0)
        else:
            return total


def decode(
    passes: Passes, rows: int, params: Any, batch: dict[str, Any], draw: Any
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Decodes N prompts on R slots.

    Memory: a cache of R rows of Q + T slots, and of g rows of Q while prompts come in.

    Args:
      passes: how the model is run.
      rows: R.
      params: the expert's.
      batch: `tokens` [N, P], `start` and `row` [N], perhaps `draft` [N, T] and
        `expected` [N]; see `decode.Batch`.
      draw: int32 [].

    Returns:
      `tokens` int32 [N, T] and `finite` bool [N], and the number of slot-steps, int32 [].
    """
    shared = passes.shared(params, batch["tokens"], batch["start"])
    queue = _Queue(passes, rows, params, batch, draw, shared)
    last = last_rows(rows)

    def run(state: State, until: int) -> State:
        def step(carry: Any) -> Any:
            state = queue.step(carry[1])
            return queue.going(state, until), state

        begin = queue.going(state, until), state
        return jax.lax.while_loop(lambda carry: carry[0], step, begin)[1]

    def fill(carry: Any) -> Any:
        state = run(queue.refill(carry[1]), last)
        return any_expert(queue.left(state) > 0), state

    empty = queue.empty()
    begin = any_expert(queue.left(empty) > 0), empty
    _, state = jax.lax.while_loop(lambda carry: carry[0], fill, begin)
    if last:
        state = run(queue.narrowed(state, last), 0)
    return {name: state[name] for name in ("tokens", "finite")}, state["slot_steps"]


class _Queue:
    """The prompts of one expert in order, and what a refill and a step make of a state."""

    def __init__(
        self, passes: Passes, rows: int, params: Any, batch: Any, draw: Any, shared: Any
    ) -> None:
        self.passes, self.params, self.batch, self.draw = passes, params, batch, draw
        self.around = passes.around(shared, batch["tokens"])
        tokens, start = passes.behind(batch)
        self.N, self.Q = tokens.shape
        self.R, self.g = rows, group(rows)
        self.ring = self.Q + passes.max_tokens
        self.tokens, self.lengths = tokens, self.Q - start
        self.count = (self.lengths > 0).sum(dtype=jnp.int32)
        self.draft = batch.get("draft")
        expected = jnp.zeros_like(start)
        if self.draft is not None:
            greedy = batch["temperature"] == 0
            expected = self.tried = drafted(self.draft, passes.config.eos_ids, greedy)
        expected = batch.get("expected", expected)
        filler = self.lengths == 0
        self.order = jnp.lexsort([-self.lengths, -expected, filler]).astype(jnp.int32)

    def empty(self) -> State:
        """No prompt has come in."""
        N, R, passes = self.N, self.R, self.passes
        zeros, none = jnp.zeros(R, jnp.int32), jnp.zeros((), jnp.int32)
        cache = passes.cache(R, self.ring)
        return {
            "which": zeros + N,
            "last": zeros,
            "length": zeros,
            "step": zeros,
            "ended": jnp.ones(R, bool),
            "keys": cache["keys"],
            "values": cache["values"],
            "tokens": jnp.full((N, passes.max_tokens), passes.filler, jnp.int32),
            "finite": jnp.ones(N, bool),
            "next": none,
            "clock": none,
            "slot_steps": none,
        }

    def left(self, state: State) -> jax.Array:
        """Prompts that have not come in."""
        return self.count - state["next"]

    def going(self, state: State, until: int) -> jax.Array:
        """Whether all experts make a step now, bool [].

        Not where it is time to refill, and not where the queue is empty and no expert has more than
        `until` rows left.
        """
        need = jnp.minimum(self.g, self.left(state))
        ready = jnp.minimum(state["ended"].sum(dtype=jnp.int32), need)
        running = largest((~state["ended"]).sum(dtype=jnp.int32))
        need, ready = of_experts(need), of_experts(ready)
        waits = ready.astype(jnp.float32) < _ENOUGH * need.astype(jnp.float32)
        return jnp.where(need > 0, waits & (running > 0), running > until)

    def refill(self, state: State) -> State:
        """The next g prompts come in, as far as there are slots."""
        N, R, g = self.N, self.R, self.g
        nth = jnp.arange(g, dtype=jnp.int32)
        free = _first(state["ended"], g)
        place = state["next"] + nth
        taken = (free < R) & (place < self.count)
        slots = jnp.where(taken, free, R)
        which = jnp.where(taken, self.order[jnp.minimum(place, N - 1)], N)
        at = jnp.minimum(which, N - 1)
        lengths = jnp.where(taken, self.lengths[at], 0)
        drafts = () if self.draft is None else (self.draft[at], self.tried[at])
        found = prefill(self.passes, self.params, self.tokens[at], lengths, self.around, *drafts)
        new = {
            "which": which,
            "last": found.last,
            "length": found.length,
            "step": found.accepted,
            "ended": ~taken,
        }
        placed = {name: state[name].at[slots].set(new[name], mode="drop") for name in new}
        caches = {name: state[name] for name in found.cache}
        placed |= _lay(caches, found.cache, slots, state["clock"])
        if drafts:
            said = jnp.arange(drafts[0].shape[1], dtype=jnp.int32)[None] < found.accepted[:, None]
            said = jnp.where(said, drafts[0], self.passes.filler)
            placed["tokens"] = state["tokens"].at[which].set(said, mode="drop")
            placed["finite"] = state["finite"].at[which].set(found.finite, mode="drop")
        return {**state, **placed, "next": state["next"] + taken.sum(dtype=jnp.int32)}

    def narrowed(self, state: State, rows: int) -> State:
        """The rows that have not ended, at most `rows` of them, in as many slots."""
        kept = _first(~state["ended"], rows)
        at = jnp.minimum(kept, self.R - 1)
        taken = {name: state[name][at] for name in ("which", "last", "length", "step")}
        taken |= _gathered({name: state[name] for name in ("keys", "values")}, at)
        return {**state, **taken, "ended": kept == self.R}

    def step(self, state: State) -> State:
        """Every row that has not ended says one more token."""
        N, clock, length, ended = self.N, state["clock"], state["length"], state["ended"]
        age = (clock - jnp.arange(self.ring, dtype=jnp.int32)) % self.ring
        seen = age[None] <= length[:, None]
        cache = {"end": clock, "keys": state["keys"], "values": state["values"]}
        around = dataclasses.replace(self.around, ring=True)
        states, cache = self.passes.run(
            self.params, state["last"][:, None], length[:, None], cache, seen[:, None], around
        )
        at = jnp.minimum(state["which"], N - 1)
        batch = {**self.batch, "row": self.batch["row"][at]}
        chosen, stop, fine = self.passes.choose(
            self.params, states[:, 0], batch, self.draw, state["step"], ended
        )
        which, more = jnp.where(ended, N, state["which"]), jnp.where(ended, 0, 1)
        step = state["step"] + more
        return {
            **state,
            "last": chosen,
            "length": length + more,
            "step": step,
            "ended": stop | (step == self.passes.max_tokens),
            "keys": cache["keys"],
            "values": cache["values"],
            "tokens": state["tokens"].at[which, state["step"]].set(chosen, mode="drop"),
            "finite": state["finite"].at[which].set(state["finite"][at] & fine, mode="drop"),
            "clock": (clock + 1) % self.ring,
            "slot_steps": state["slot_steps"] + len(ended),
        }


def _first(chosen: jax.Array, count: int) -> jax.Array:
    """Returns the first `count` indices that are chosen, int32; behind the last of them, R."""
    R = len(chosen)
    rank = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    hit = chosen[None] & (rank[None] == jnp.arange(count, dtype=jnp.int32)[:, None])
    return jnp.where(hit, jnp.arange(R, dtype=jnp.int32)[None], R).min(-1)


def _lay(caches: Any, new: Any, slots: jax.Array, clock: jax.Array) -> Any:
    """Puts new rows [..., g, H, d, M] into the rings [..., R, H, d, T], right behind the clock.

    A row is replaced whole: what an earlier one left, NaN too, is gone. Layers that are stacked go
    one by one, so that no second copy of all new rows is held.
    """

    def turned(new: jax.Array, T: int) -> jax.Array:
        lacking = T - new.shape[-1]
        whole = jnp.pad(new, [(0, 0)] * (new.ndim - 1) + [(max(lacking, 0), 0)])
        return jnp.roll(whole[..., max(-lacking, 0) :], clock, -1)

    def one(held: jax.Array, new: jax.Array) -> jax.Array:
        return _put(held, slots, turned(new, held.shape[-1]))

    def layer(index: Any, caches: Any) -> Any:
        def put(held: jax.Array, new: jax.Array) -> jax.Array:
            rows = turned(jax.lax.dynamic_index_in_dim(new, index, keepdims=False), held.shape[-1])
            return laid(_put(held, (index, slots), rows))

        return jax.tree.map(put, caches, new)

    if isinstance(caches["keys"], tuple):
        return jax.tree.map(one, caches, new)
    return jax.lax.fori_loop(0, len(caches["keys"]), layer, caches)


def _gathered(caches: Any, at: jax.Array) -> Any:
    """The rows `at`, int32 [r], come first: in a cache of their own, or of stacked layers in place.

    The model looks at as many rows of a stacked cache as it has tokens for.
    """

    def layer(index: Any, caches: Any) -> Any:
        def put(held: jax.Array) -> jax.Array:
            rows = jax.lax.dynamic_index_in_dim(held, index, keepdims=False)[at]
            return laid(jax.lax.dynamic_update_slice(held, rows[None], (index, 0, 0, 0, 0)))

        return jax.tree.map(put, caches)

    if isinstance(caches["keys"], tuple):
        return jax.tree.map(lambda x: jnp.take(x, at, 0), caches)
    return jax.lax.fori_loop(0, len(caches["keys"]), layer, caches)


def _put(held: jax.Array, at: Any, rows: jax.Array) -> jax.Array:
    """Sets rows; of 16 bits as whole numbers, as a CPU would write all of the array in float32."""
    if held.dtype.itemsize > 2 or not on_cpu():
        return held.at[at].set(rows, mode="drop")
    kind = f"uint{8 * held.dtype.itemsize}"
    words, new = (jax.lax.bitcast_convert_type(x, kind) for x in (held, rows))
    return jax.lax.bitcast_convert_type(words.at[at].set(new, mode="drop"), held.dtype)
