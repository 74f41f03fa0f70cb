"""One expert → a score; a population → Scores."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, ScoreError, check_flag, shown
from thicket_jax.experts import rounding
from thicket_jax.experts.arguments import check_alike, check_arrays, check_callable
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, check_experts, check_law
from thicket_jax.mapping import programs
from thicket_jax.mapping.blocks import Chunk, ExpertMap, expert_map
from thicket_jax.mapping.functions import Mapped, mapped, output_shapes
from thicket_jax.mapping.placement import Placement, place
from thicket_jax.scoring.layouts import check_batch
from thicket_jax.scoring.scores import (
    Grade,
    Progress,
    ScoreFn,
    Scores,
    concatenate,
    graded,
    of_graded,
    of_outputs,
    of_values,
)


class Outputs(Protocol):
    """A function on a batch, ready to be run for any experts."""

    def chunks(self, experts: Population) -> Iterator[Chunk]:
        """Yields the function's outputs for every expert in order, as numpy."""
        ...


class ScorerProtocol(Protocol):
    """What the search asks of a score function on the devices: on all items, or on pieces of them.

    Attributes:
      expert_map: the mapped program.
    """

    expert_map: ExpertMap

    def stream(
        self,
        experts: Population,
        items: tuple[int, int] | None = None,
        most: int | None = None,
    ) -> Iterator[tuple[int, Scores]]:
        """Yields (position of the first, scores) of consecutive experts, in order.

        Args:
          experts: n of them.
          items: (start, stop) in the scorer's own order of the items; None is all, in the batch's.
          most: experts per call at most, so that a caller can log at least so often.
        """
        ...

    def all_items(self, experts: Population) -> Scores:
        """Returns the scores of a few experts on all items, in the batch's own order."""
        ...

    def on(self, batch: Any) -> Outputs:
        """Returns the same program on another batch laid out like the training batch."""
        ...

    @property
    def predicting(self) -> Placement:
        """How another function of the same experts is best mapped beside this one."""
        ...


def score(
    score_fn: ScoreFn,
    params: Any,
    population: Population,
    batch: Any,
    *,
    grade: Grade | None = None,
    block_size: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    backend: str = "pmap",
    keep_items: bool = True,
    stream: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Scores every expert of a population (Neural Thickets, RandOpt, the sampling step).

    Called again with the same function and shapes it compiles nothing; `Scorer` also keeps what it
    checked and placed. What the function closes over, or the object of a bound method holds, is
    read when it is compiled. Memory on each device: parameters, batch and one block of perturbed
    parameters and activations; on the host N × B.

    Args:
      score_fn: `(params, batch) -> float [] or [B]`, pure, higher is better; a [B] is averaged.
        With `grade`, it returns per-item outputs [B, ...] of any dtype instead.
      params: θ; never modified.
      population: N experts. Its key is not consumed.
      batch: pytree of arrays with leading axis B, or None. Leaves without axes, such as a typed
        key, are the same for every item; leaves with different leading axes are refused.
      grade: `outputs [n, B, ...] -> float32 [n, B]`, or a `Graded`, run on the host while the
        devices work on the next experts; n is the number of experts in a call.
      block_size: experts per vmap, or `"auto"`: as many as the device's memory holds (a CPU core's
        cache), whatever N is, remembered between calls. Halved when memory runs out.
      devices: default every visible device.
      backend: `"pmap"`, `"shard_map"` or `"none"`; equal results.
      keep_items: keep [N, B] outcomes where the score is per item.
      stream: perturb each leaf where the function uses it and drop it after, for models of which
        no second copy fits: with `block_size=1` the peak is the parameters and the largest leaf,
        instead of twice the parameters. The same bits; a leaf that is used several times, or in a
        loop, is drawn every time.
      progress: called with (done, N).

    Returns:
      `Scores` on the host, on every process.

    Raises:
      ScoreError: the score function does not return a floating [] or [B], leaves of the batch have
        different leading axes, or grade raised.
      MemoryLimitError: one expert does not fit.
      ArgumentError: bad options, or no expert differs from θ in its dtype.

    Example:
      >>> import thicket_jax as tj
      >>> experts = tj.population(jax.random.key(0), 8, 0.1)
      >>> fn = lambda params, batch: -((params["w"] - batch) ** 2)
      >>> score(fn, {"w": jnp.zeros(3)}, experts, jnp.ones(3)).items.shape
      (8, 3)
    """
    check_callable("progress", progress)
    check_experts("population", population)
    scorer = Scorer(
        score_fn, params, population, batch, grade=grade, block_size=block_size, devices=devices,
        backend=backend, keep_items=keep_items, stream=stream,
    )  # fmt: skip
    ready = scorer.expert_map
    # By the caller's own arrays, so that it is told once, not once for each placed copy.
    rounding.check(params, ready.plan, population, ready.scales)
    return scorer._score(population, progress)


class Scorer:
    """A score function, checked, placed and compiled once, to be called again.

    Other populations, other batches and other parameters of the same shapes run the same program:
    `scorer(population)`, `scorer.on(batch)(population)`, `scorer.at(params)(population)`. Keys are
    not consumed. Memory as `score`; what was placed stays on the devices as long as the scorer.

    Attributes:
      expert_map: the mapped program.
      keep_items: whether per-item outcomes are kept.

    Example:
      >>> import thicket_jax as tj
      >>> fn = lambda params, batch: -((params["w"] - batch) ** 2)
      >>> scorer = Scorer(fn, {"w": jnp.zeros(3)}, tj.gaussian(), jnp.ones(3))
      >>> [scorer(tj.population(jax.random.key(s), 8, 0.1)).items.shape for s in range(2)]
      [(8, 3), (8, 3)]
    """

    def __init__(
        self,
        score_fn: ScoreFn,
        params: Any,
        law: Noise | Population,
        batch: Any,
        *,
        grade: Grade | None = None,
        block_size: int | str = "auto",
        devices: Sequence[jax.Device] | None = None,
        backend: str = "pmap",
        keep_items: bool = True,
        stream: bool = False,
    ) -> None:
        """Checks the score function by its shapes and places parameters and batch.

        Args:
          score_fn: as in `score`.
          params: θ; never modified.
          law: the noise law of the populations to come, or a population that has it.
          batch: as in `score`.
          grade, block_size, devices, backend, keep_items, stream: as in `score`.

        Raises:
          ScoreError: the score function does not return a floating [] or [B], or leaves of the
            batch have different leading axes.
          ArgumentError: bad options.
        """
        if isinstance(law, Population):
            check_experts("population", law)
            law = law.noise
        check_law(law)
        check_callable("score_fn", score_fn, optional=False)
        check_callable("grade", grade)
        check_flag("keep_items", keep_items)
        check_arrays("params", params)
        check_batch(batch)
        placement = place(
            params, devices=devices, backend=backend, block_size=block_size, stream=stream
        )
        self._prepare(mapped(score_fn), params, law, batch, placement, grade, keep_items)
        self._checks = True

    @classmethod
    def placed(
        cls,
        score_fn: Callable[..., Any],
        params: Any,
        law: Noise,
        batch: Any,
        placement: Placement,
        *,
        grade: Grade | None = None,
        keep_items: bool = True,
        with_id: bool = False,
    ) -> "Scorer":
        """Returns a scorer where the caller has the placement; `with_id` as in `mapped`."""
        scorer = cls.__new__(cls)
        function = mapped(score_fn, with_id)
        scorer._prepare(function, params, law, batch, placement, grade, keep_items)
        return scorer

    def _prepare(
        self,
        function: Mapped,
        params: Any,
        law: Noise,
        batch: Any,
        placement: Placement,
        grade: Grade | None,
        keep_items: bool,
    ) -> None:
        ready = expert_map(function, params, law, batch, placement)
        per_item = True
        if grade is None:
            per_item = _is_per_item(function, ready)
            ready = ready.of(_scalar_and_items(function, per_item and keep_items))
        self.expert_map, self.grade, self.keep_items = ready, grade, keep_items and per_item
        self._function, self._per_item, self._checks = function, per_item, False

    def __call__(self, population: Population, progress: Progress | None = None) -> Scores:
        """Scores every expert of a population under the scorer's law.

        Args:
          population: N experts, of any key.
          progress: called with (done, N).

        Returns:
          `Scores` on the host, on every process.

        Raises:
          ArgumentError: a population of another law, or none at all; no expert differs from θ.
          ScoreError: grade raised.
          MemoryLimitError: one expert does not fit.
        """
        check_experts("population", population)
        check_callable("progress", progress)
        ready = self.expert_map
        if population.noise != ready.plan.noise:
            raise ArgumentError(
                f"population has the noise law {shown(population.noise, 200)}, the scorer was "
                f"prepared for {shown(ready.plan.noise, 200)}; make a scorer for each law"
            )
        rounding.check(ready.params, ready.plan, population, ready.scales)
        return self._score(population, progress)

    def _score(self, population: Population, progress: Progress | None) -> Scores:
        parts = []
        for start, part in self.stream(population):
            parts.append(part)
            if progress is not None:
                progress(start + len(part), len(population))
        return concatenate(parts)

    def stream(
        self,
        experts: Population,
        items: tuple[int, int] | None = None,
        most: int | None = None,
    ) -> Iterator[tuple[int, Scores]]:
        """Yields scores of consecutive experts; see `ScorerProtocol`. It knows no part of items."""
        if items is not None:
            raise ArgumentError("this scorer takes all items at once; leave items out")
        for chunk in self.expert_map.chunks(experts, most):
            if self.grade is None:
                yield chunk.start, of_values(chunk.outputs["value"], chunk.outputs.get("items"))
                continue
            found = graded(self.grade, chunk.outputs, chunk.stop - chunk.start)
            scores = of_graded(of_outputs(chunk.outputs, found))
            if not self.keep_items:
                scores = Scores(scores.values, scores.failed)
            yield chunk.start, scores

    def all_items(self, experts: Population) -> Scores:
        """Returns the scores of a few experts; see `ScorerProtocol`."""
        return concatenate([part for _, part in self.stream(experts)])

    def chunks(self, experts: Population) -> Iterator[Chunk]:
        """Yields what the score function returns for every expert, ungraded."""
        return self.expert_map.chunks(experts)

    def on(self, batch: Any) -> "Scorer":
        """Returns a scorer on another batch; of the same shapes, it compiles nothing.

        Raises:
          ScoreError: as for the first batch; or scores were per item and are not, or the reverse.
        """
        if self._checks:
            check_batch(batch)
        ready = self.expert_map.on(batch)
        if self.grade is None and ready.described != self.expert_map.described:
            per_item = _is_per_item(self._function, ready)
            if per_item != self._per_item:
                kinds = ("one score for the batch", "one score per item")
                raise ScoreError(
                    f"score_fn returns {kinds[per_item]} of this batch and {kinds[not per_item]} "
                    "of the one that the scorer was made for; make another scorer"
                )
        return self._with(ready)

    def at(self, params: Any) -> "Scorer":
        """Returns a scorer around another θ of the same shapes; it compiles nothing.

        Raises:
          ArgumentError: a tree of another structure, or leaves of other shapes or dtypes.
        """
        check_arrays("params", params)
        check_alike("params", params, self.expert_map.params)
        return self._with(self.expert_map.at(params))

    def _with(self, ready: ExpertMap) -> "Scorer":
        scorer = copy.copy(self)
        scorer.expert_map = ready
        return scorer

    @property
    def predicting(self) -> Placement:
        """How another function of the same experts is best mapped: as many as fit."""
        return dataclasses.replace(self.expert_map.placement, block_size="auto", most=None)


def _is_per_item(function: Mapped, ready: ExpertMap) -> bool:
    """`check_score`, once for a function and shapes."""
    return bool(
        programs.kept(
            function.owner,
            ("per item", function.kind, ready.described),
            lambda: check_score(function.call, ready.params, ready.data),
        )
    )


def _scalar_and_items(function: Mapped, keep_items: bool) -> Mapped:
    """A score function → its mean and, if wanted, its items, in float32."""

    def call(params: Any, data: Any, id_: Any) -> dict[str, jax.Array]:
        result = jnp.asarray(function.call(params, data, id_), jnp.float32)
        out = {"value": result.mean()}
        if keep_items:
            out["items"] = result
        return out

    return Mapped(call, function.owner, ("score", keep_items, function.kind))


def check_score(call: Callable[..., Any], params: Any, batch: Any) -> bool:
    """Checks by shapes alone that a score is floating [] or [B]; returns whether it is [B].

    `call` is `(params, batch, id) -> score`.

    Raises:
      ScoreError: another shape, or not floating.
    """
    result = output_shapes(call, params, batch)
    if not hasattr(result, "shape"):
        raise ScoreError(
            f"score_fn returned a {type(result).__name__}; return one array, [] or [B]"
        )
    found = f"{result.dtype}{list(result.shape)}"
    sizes = sorted({np.shape(x)[0] for x in jax.tree.leaves(batch) if np.ndim(x)})
    if result.ndim > 1 or (result.ndim == 1 and sizes and result.shape[0] not in sizes):
        wanted = f"[] or [{sizes[0]}]" if sizes else "[] or [B]"
        raise ScoreError(
            f"score_fn returned {found}; return {wanted}: one score, or one per item of the batch"
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ScoreError(
            f"score_fn returned {found}; scores must be floating: add .astype('float32')"
        )
    return result.ndim == 1
