"""One expert on some of the items: a batch cut into pieces, of which one program runs any.

The items are put into one order for all experts and cut into pieces of one size. The compiled
program takes all pieces, and the first and the last that are wanted now: every round of a race is
the same program, draws an expert's noise once, and computes nothing but what is asked for.

Shapes: n experts, B items, P pieces of c items.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.population import Population
from thicket_jax.mapping import devices
from thicket_jax.mapping.blocks import Chunk, ExpertMap, expert_map
from thicket_jax.mapping.functions import Mapped, mapped, output_shapes
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.layouts import Layout, is_key, item_order, leading_layout
from thicket_jax.scoring.scorer import ScorerProtocol, check_score
from thicket_jax.scoring.scores import (
    Grade,
    Graded,
    Scores,
    concatenate,
    graded,
    of_graded,
    of_outputs,
)

_WORTH_COMPILING = 8  # experts in a block, from which on a second program pays for itself


class ItemScorer(ScorerProtocol, Protocol):
    """A scorer of any consecutive items in an order of its own.

    Attributes:
      order: int [B], the items in the order in which every expert sees them.
      count: of the items, B.
    """

    order: np.ndarray
    count: int


class PieceScorer:
    """A score function on any run of pieces, ready on the devices; an `ItemScorer`.

    Attributes:
      order: int [B], the items in the order in which every expert sees them.
      size: items in a piece, c.
      expert_map: the mapped program.
    """

    def __init__(
        self,
        score_fn: Callable[..., Any],
        params: Any,
        experts: Population,
        batch: Any,
        placement: Placement,
        *,
        piece: Callable[[int], int],
        grade: Grade | None = None,
        layout: Layout | None = None,
        with_id: bool = False,
    ) -> None:
        """Checks the score function by its shapes, cuts and places the batch, and compiles.

        Args:
          score_fn: as in `tj.score`, of one outcome per item, each of which depends on its own
            item alone; with `grade`, of one output per item.
          params: θ; never modified.
          experts: a population of the law and key of those to be scored.
          batch: as in `tj.score`.
          placement: where, and how many at once. Where only a few experts fit a block, `"auto"` is
            one: rounds are short, and a program for the few is not worth compiling.
          piece: B → items in a piece.
          grade: as in `tj.score`; items that were not computed are zeros in the outputs that it
            is given, and what it says of them is not looked at.
          layout: how items lie in the batch; default on the leading axis of leaves.
          with_id: whether `score_fn` takes the expert's id.
        """
        function = mapped(score_fn, with_id)
        if grade is None:
            check_score(function.call, params, batch)
        self.layout = layout or leading_layout(function.call, params, batch)
        self.grade = grade
        self.count = self.layout.count(batch)
        self.size = piece(self.count)
        self.order = item_order(experts.key, self.count)
        leaves, structure, whole = self._cut(batch, self.order)
        first = jax.tree.unflatten(
            structure, [x if w else x[0] for x, w in zip(leaves, whole, strict=True)]
        )
        _check_piece(function.call, params, first, self.size, self.layout.axes)
        over = _over_pieces(function, structure, whole, grade is None)
        data = (leaves, np.int32(0), np.int32(self.pieces))
        one = dataclasses.replace(placement, block_size=1)
        auto = placement.block_size == "auto"
        ready = expert_map(over, params, experts.noise, data, one if auto else placement)
        if auto and _fitting(ready, experts) >= _WORTH_COMPILING:
            ready = ready.placed(placement)  # finds the program of one again
        ready.prepare(experts)
        self.expert_map = ready
        self._placement = placement
        self._training = ready.data[0]

    @property
    def pieces(self) -> int:
        """Number of pieces, P; what the last one lacks is filled up and thrown away."""
        return -(-self.count // self.size)

    def _cut(self, batch: Any, order: np.ndarray) -> tuple[list, Any, tuple[bool, ...]]:
        """The leaves as pieces [P, ...], their structure, and which are the same for all pieces."""
        filled = np.resize(order, (self.pieces, self.size))
        taken = [jax.tree.flatten(self.layout.take(batch, row)) for row in filled]
        structure, own = taken[0][1], jax.tree.leaves(batch)
        columns = list(zip(*(leaves for leaves, _ in taken), strict=True))
        whole = tuple(x is column[0] for x, column in zip(own, columns, strict=True))
        leaves = [
            column[0] if same else (jnp.stack if is_key(column[0]) else np.stack)(column)
            for column, same in zip(columns, whole, strict=True)
        ]
        return leaves, structure, whole

    def stream(
        self,
        experts: Population,
        items: tuple[int, int] | None = None,
        most: int | None = None,
    ) -> Iterator[tuple[int, Scores]]:
        """Yields scores of consecutive experts on items of the order; see `ScorerProtocol`.

        `items` are (start, stop), the first at the beginning of a piece and the last behind the end
        of one; the scores are of `order[start:stop]`, in this order. Default all of them.
        """
        start, stop = items or (0, self.count)
        for chunk in self._chunks(self._training, experts, start, stop, most):
            n, wanted = chunk.stop - chunk.start, self.order[start:stop]
            if self.grade is None:
                found = chunk.outputs["items"][:, start:stop]
                yield chunk.start, of_graded(Graded(np.asarray(found, np.float32)))
                continue

            def spread(leaf: np.ndarray, n: int = n, wanted: np.ndarray = wanted) -> np.ndarray:
                full = np.zeros((n, self.count, *leaf.shape[2:]), leaf.dtype)
                full[:, wanted] = leaf[:, start:stop]
                return self._as_returned(full)

            outputs = jax.tree.map(spread, chunk.outputs)
            found = of_outputs(outputs, graded(self.grade, outputs, n))
            if found.items.shape[1] != self.count:
                raise ScoreError(
                    f"grade returned {list(found.items.shape)} for {self.count} items; return "
                    "float32 [n, B], one entry per item of the batch"
                )
            yield (
                chunk.start,
                of_graded(
                    Graded(
                        found.items[:, wanted],
                        None if found.answers is None else found.answers[:, wanted],
                        {name: column[:, wanted] for name, column in found.columns.items()},
                    )
                ),
            )

    def _chunks(
        self, leaves: Any, experts: Population, start: int, stop: int, most: int | None
    ) -> Iterator[Chunk]:
        """Outputs [n, P·c, ...] of the items from `start` to `stop`; elsewhere they are zeros."""
        first, last = start // self.size, -(-stop // self.size)
        data = (leaves, np.int32(first), np.int32(last))
        for chunk in self.expert_map.on(data).chunks(experts, most):
            yield dataclasses.replace(chunk, outputs=jax.tree.map(self._flat, chunk.outputs))

    def _flat(self, leaf: np.ndarray) -> np.ndarray:
        """[n, P, ..., c, ...] → [n, P·c, ...]."""
        return leaf.reshape(leaf.shape[0], -1, *leaf.shape[2 + self.layout.axes :])

    def _as_returned(self, leaf: np.ndarray) -> np.ndarray:
        """[n, B, ...] → with the axes that the score function returns for whole batches."""
        ones = (1,) * (self.layout.axes - 1)
        return leaf.reshape(leaf.shape[0], *ones, *leaf.shape[1:])

    def all_items(self, experts: Population) -> Scores:
        """Returns the scores of a few experts on all items, in the batch's own order."""
        found = concatenate([part for _, part in self.stream(experts)])
        back = np.argsort(self.order)
        assert found.items is not None
        return dataclasses.replace(
            found,
            items=found.items[:, back],
            answers=None if found.answers is None else found.answers[:, back],
            columns={name: column[:, back] for name, column in found.columns.items()},
        )

    @property
    def predicting(self) -> Placement:
        """How another function is mapped: a block of one, as scoring in rounds is short.

        Larger blocks save less than compiling a program for them costs.
        """
        return dataclasses.replace(self._placement, block_size=1, most=None)

    def on(self, batch: Any) -> "PieceOutputs":
        """Returns the same program on another batch laid out like the training batch."""
        return PieceOutputs(self, batch)


@dataclasses.dataclass(frozen=True)
class PieceOutputs:
    """What the score function returns for all items of another batch, by the scorer's program."""

    scorer: PieceScorer
    batch: Any

    def chunks(self, experts: Population) -> Iterator[Chunk]:
        """Yields the outputs of every expert in order, as the score function would return them.

        A batch of more items than the training pieces hold takes several runs, whose outputs are
        joined: then all experts' come at once.
        """
        scorer = self.scorer
        count, room = scorer.layout.count(self.batch), scorer.pieces * scorer.size
        runs = []
        for begin in range(0, count, room):
            wanted = np.arange(begin, min(begin + room, count))
            runs.append(self._run(experts, wanted))
        if len(runs) == 1:
            yield from runs[0]
            return
        joined = [_joined([chunk.outputs for chunk in run], 0) for run in runs]
        yield Chunk(0, len(experts), _joined(joined, scorer.layout.axes))

    def _run(self, experts: Population, wanted: np.ndarray) -> Iterator[Chunk]:
        scorer, m = self.scorer, len(wanted)
        leaves = scorer.expert_map.placement.mapper.replicate(scorer._cut(self.batch, wanted)[0])
        for chunk in scorer._chunks(leaves, experts, 0, m, None):
            outputs = jax.tree.map(lambda x: scorer._as_returned(x[:, :m]), chunk.outputs)
            yield dataclasses.replace(chunk, outputs=outputs)


def _fitting(one: ExpertMap, experts: Population) -> int:
    """How many experts fit a block, by the memory of the program of one."""
    temporaries = one.program(experts).expert_bytes
    device = one.placement.mapper.devices[0]
    return int(devices.from_first(devices.working_bytes(device) // max(temporaries, 1)))


def _joined(trees: list[Any], axis: int) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *trees)


def _check_piece(call: Callable[..., Any], params: Any, piece: Any, size: int, axes: int) -> None:
    """Raises `ScoreError` unless outputs for one piece have one entry per item of it."""
    outputs = output_shapes(call, params, piece)
    wanted = (1,) * (axes - 1) + (size,)
    for leaf in jax.tree.leaves(outputs):
        if leaf.shape[:axes] != wanted:
            raise ScoreError(
                f"score_fn returned {leaf.dtype}{list(leaf.shape)} for {size} of the items; every "
                "output must have one entry per item, and every leaf of the batch that has the "
                "items must have them on its leading axis"
            )


def _over_pieces(
    function: Mapped, structure: Any, whole: tuple[bool, ...], is_score: bool
) -> Mapped:
    """A function of one piece → of all pieces, of which it runs those from the first to the last.

    Args:
      function: of `(params, piece, id)`.
      structure: of a piece.
      whole: which of its leaves are the same for every piece.
      is_score: whether it returns outcomes, and not outputs to be graded.
    """

    def call(params: Any, data: Any, id_: Any) -> Any:
        leaves, first, last = data

        def one(p: Any) -> Any:
            own = [
                x if same else jax.lax.dynamic_index_in_dim(x, p, keepdims=False)
                for x, same in zip(leaves, whole, strict=True)
            ]
            result = function.call(params, jax.tree.unflatten(structure, own), id_)
            return {"items": jnp.asarray(result, jnp.float32)} if is_score else result

        def add(p: Any, out: Any) -> Any:
            def put(x: Any, row: Any) -> Any:
                return jax.lax.dynamic_update_index_in_dim(x, row, p, 0)

            return jax.tree.map(put, out, one(p))

        P = next(len(x) for x, same in zip(leaves, whole, strict=True) if not same)
        shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32))
        start = jax.tree.map(lambda x: jnp.zeros((P, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(first, last, add, start)

    kind = ("pieces", function.kind, structure, whole, is_score)
    return Mapped(call, function.owner, kind)
