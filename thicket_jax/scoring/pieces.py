"""One expert on some of the items: a batch cut into pieces, of which one program runs any.

The items are put into one order for all experts and cut into pieces of one size. The compiled
program takes all pieces, and the first and the last that are wanted now: every round of a race is
the same program, draws an expert's noise once, and computes nothing but what is asked for.

Shapes: n experts, B items, P pieces of c items.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.leaves import plan
from thicket_jax.experts.population import Population
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.blocks import Chunk, ExpertMap, expert_map
from thicket_jax.scoring.layouts import Layout, _is_key, item_order, leading_layout
from thicket_jax.scoring.scorer import check_score
from thicket_jax.scoring.scores import Grade, Graded, Scores, concatenate, graded

_WORTH_COMPILING = 8  # experts in a block, from which on a second program pays for itself


class PieceScorer:
    """A score function on any run of pieces, ready on the devices.

    Attributes:
      order: int [B], the items in the order in which every expert sees them.
      size: items in a piece, c.
      map: the mapped program.
    """

    def __init__(
        self,
        score_fn: Callable[..., Any],
        params: Any,
        population: Population,
        batch: Any,
        *,
        piece: Callable[[int], int],
        mapper: dv.Mapper,
        grade: Grade | None = None,
        layout: Layout | None = None,
        block_size: int | str = "auto",
        most: int | None = None,
        with_id: bool = False,
        stream: bool = False,
    ) -> None:
        """Checks the score function by its shapes, cuts and places the batch, and compiles.

        Args:
          score_fn: as in `tj.score`, of one outcome per item, each of which depends on its own
            item alone; with `grade`, of one output per item.
          params, population, batch, mapper: as in `Scorer`.
          piece: B → items in a piece.
          grade: as in `tj.score`; items that were not computed are zeros in the outputs that it
            is given, and what it says of them is not looked at.
          layout: how items lie in the batch; default on the leading axis of leaves.
          block_size, most, with_id, stream: as in `expert_map`; but where only a few experts fit a
            block, `"auto"` is one: rounds are short, and a program for the few is not worth
            compiling.
        """
        plan(params, population.noise)
        if grade is None:
            check_score(score_fn, params, batch, with_id)
        self.layout = layout or leading_layout(score_fn, params, batch, with_id)
        self.grade = grade
        self.count = self.layout.count(batch)
        self.size = piece(self.count)
        self.order = item_order(population.key, self.count)
        leaves, structure, whole = self._cut(batch, self.order)
        first = jax.tree.unflatten(
            structure, [x if w else x[0] for x, w in zip(leaves, whole, strict=True)]
        )
        _check_piece(score_fn, params, first, self.size, self.layout.axes, with_id)
        fn = _over_pieces(score_fn, structure, whole, grade is None)
        data = (leaves, np.int32(0), np.int32(self.pieces))

        def mapped(block: int | str) -> ExpertMap:
            return expert_map(
                fn,
                params,
                data,
                population,
                mapper=mapper,
                block_size=block,
                most=most,
                with_id=with_id,
                stream=stream,
            )

        self.map = mapped(1 if block_size == "auto" else block_size)
        if block_size == "auto" and _fitting(self.map) >= _WORTH_COMPILING:
            spent = self.map.compile_seconds
            self.map = mapped("auto")  # finds the program of one expert again
            self.map.compile_seconds += spent
        self._training = self.map.shared[1][0]

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
            column[0] if same else (jnp.stack if _is_key(column[0]) else np.stack)(column)
            for column, same in zip(columns, whole, strict=True)
        ]
        return leaves, structure, whole

    def stream(
        self, experts: Population, start: int, stop: int, most: int | None = None
    ) -> Iterator[tuple[int, Scores]]:
        """Yields (position of the first, scores) of consecutive experts on items of the order.

        Args:
          experts: n of them.
          start: the first item, at the beginning of a piece.
          stop: behind the last one, at the end of a piece.
          most: experts per call at most, so that a caller can log so often.

        Yields:
          `Scores` of the items `order[start:stop]`, in this order.
        """
        for chunk in self._chunks(self._training, experts, start, stop, most):
            n, wanted = chunk.stop - chunk.start, self.order[start:stop]
            if self.grade is None:
                items = chunk.outputs["items"][:, start:stop]
                yield chunk.start, _scores(Graded(np.asarray(items, np.float32)))
                continue

            def spread(leaf: np.ndarray, n: int = n, wanted: np.ndarray = wanted) -> np.ndarray:
                full = np.zeros((n, self.count, *leaf.shape[2:]), leaf.dtype)
                full[:, wanted] = leaf[:, start:stop]
                return self._as_returned(full)

            found = graded(self.grade, jax.tree.map(spread, chunk.outputs), n)
            if found.items.shape[1] != self.count:
                raise ScoreError(
                    f"grade returned {list(found.items.shape)} for {self.count} items; return "
                    "float32 [n, B], one entry per item of the batch"
                )
            yield (
                chunk.start,
                _scores(
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
        self.map = self.map.on((leaves, np.int32(first), np.int32(last)))
        for chunk in self.map.chunks(experts, most):
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
        found = concatenate([part for _, part in self.stream(experts, 0, self.count)])
        back = np.argsort(self.order)
        assert found.items is not None
        return dataclasses.replace(
            found,
            items=found.items[:, back],
            answers=None if found.answers is None else found.answers[:, back],
            columns={name: column[:, back] for name, column in found.columns.items()},
        )

    @property
    def mapper(self) -> dv.Mapper:
        """The devices."""
        return self.map.mapper

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
        leaves = scorer.mapper.replicate(scorer._cut(self.batch, wanted)[0])
        for chunk in scorer._chunks(leaves, experts, 0, m, None):
            outputs = jax.tree.map(lambda x: scorer._as_returned(x[:, :m]), chunk.outputs)
            yield dataclasses.replace(chunk, outputs=outputs)


def _fitting(one: ExpertMap) -> int:
    """How many experts fit a block, by the memory of the program of one."""
    outputs, temporaries = dv.program_bytes(one._program()[0])
    temporaries = temporaries - outputs if temporaries > outputs else temporaries
    return dv.from_first(dv.working_bytes(one.mapper.devices[0]) // max(temporaries, 1))


def _joined(trees: list[Any], axis: int) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *trees)


def _scores(found: Graded) -> Scores:
    values = found.items.mean(1, dtype=np.float64).astype(np.float32)
    failed = ~np.isfinite(values)
    values = np.where(failed, np.float32(-np.inf), values)
    return Scores(values, failed, found.items, found.answers, dict(found.columns))


def _check_piece(
    score_fn: Callable[..., Any], params: Any, piece: Any, size: int, axes: int, with_id: bool
) -> None:
    """Raises `ScoreError` unless outputs for one piece have one entry per item of it."""
    outputs = jax.eval_shape(score_fn, params, piece, *((np.int32(0),) if with_id else ()))
    wanted = (1,) * (axes - 1) + (size,)
    for leaf in jax.tree.leaves(outputs):
        if leaf.shape[:axes] != wanted:
            raise ScoreError(
                f"score_fn returned {leaf.dtype}{list(leaf.shape)} for {size} of the items; every "
                "output must have one entry per item, and every leaf of the batch that has the "
                "items must have them on its leading axis"
            )


@functools.lru_cache(maxsize=32)
def _over_pieces(
    score_fn: Callable[..., Any], structure: Any, whole: tuple[bool, ...], is_score: bool
) -> Callable[..., Any]:
    """One function object per score function, so that compiled programs are found again."""

    def fn(params: Any, data: Any, *id_: Any) -> Any:
        leaves, first, last = data

        def one(p: Any) -> Any:
            own = [
                x if same else jax.lax.dynamic_index_in_dim(x, p, keepdims=False)
                for x, same in zip(leaves, whole, strict=True)
            ]
            result = score_fn(params, jax.tree.unflatten(structure, own), *id_)
            return {"items": jnp.asarray(result, jnp.float32)} if is_score else result

        def add(p: Any, out: Any) -> Any:
            def put(x: Any, row: Any) -> Any:
                return jax.lax.dynamic_update_index_in_dim(x, row, p, 0)

            return jax.tree.map(put, out, one(p))

        P = next(len(x) for x, same in zip(leaves, whole, strict=True) if not same)
        shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32))
        start = jax.tree.map(lambda x: jnp.zeros((P, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(first, last, add, start)

    return fn
