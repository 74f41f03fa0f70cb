"""One expert → a score; a population → Scores."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ScoreError
from thicket_jax.experts.leaves import plan
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.mapping import devices as dv
from thicket_jax.mapping.blocks import expert_map
from thicket_jax.scoring.scores import Grade, Graded, Progress, ScoreFn, Scores, concatenate, graded


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

    Called again with the same function and shapes it compiles nothing. Memory on each device:
    parameters, batch and one block of perturbed parameters and activations; on the host N × B.

    Args:
      score_fn: `(params, batch) -> float [] or [B]`, pure, higher is better; a [B] is averaged.
        With `grade`, it returns per-item outputs [B, ...] of any dtype instead.
      params: θ; never modified.
      population: N experts. Its key is not consumed.
      batch: pytree of arrays with leading axis B, or None.
      grade: `outputs [n, B, ...] -> float32 [n, B]`, or a `Graded`, run on the host while the
        devices work on the next experts; n is the number of experts in a call.
      block_size: experts per vmap, or `"auto"`; see `expert_map`. Halved when memory runs out.
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
      ScoreError: the score function does not return a floating [] or [B], or grade raised.
      MemoryLimitError: one expert does not fit.
      ArgumentError: bad options.

    Example:
      >>> import thicket_jax as tj
      >>> experts = tj.population(jax.random.key(0), 8, 0.1)
      >>> fn = lambda params, batch: -((params["w"] - batch) ** 2)
      >>> score(fn, {"w": jnp.zeros(3)}, experts, jnp.ones(3)).items.shape
      (8, 3)
    """
    check_experts("population", population)
    scorer = Scorer(
        score_fn,
        params,
        population,
        batch,
        grade=grade,
        block_size=block_size,
        mapper=dv.mapper(devices, backend, params),
        keep_items=keep_items,
        stream=stream,
    )
    parts = []
    for start, part in scorer.stream(population):
        parts.append(part)
        if progress is not None:
            progress(start + len(part), len(population))
    return concatenate(parts)


class Scorer:
    """A score function, ready on the devices; the search scores base and population with one."""

    def __init__(
        self,
        score_fn: ScoreFn,
        params: Any,
        population: Population,
        batch: Any,
        *,
        mapper: dv.Mapper,
        grade: Grade | None = None,
        block_size: int | str = "auto",
        keep_items: bool = True,
        most: int | None = None,
        with_id: bool = False,
        stream: bool = False,
    ) -> None:
        """Checks the score function by its shapes, places data and compiles; see `score`.

        `most` and `with_id` are those of `expert_map`.
        """
        plan(params, population.noise)
        self.grade = grade
        if grade is None:
            self.per_item = check_score(score_fn, params, batch, with_id)
            fn = _scalar_and_items(score_fn, self.per_item and keep_items)
        else:
            self.per_item, fn = True, score_fn
        self.keep_items = keep_items and self.per_item
        self.map = expert_map(
            fn,
            params,
            batch,
            population,
            mapper=mapper,
            block_size=block_size,
            most=most,
            with_id=with_id,
            stream=stream,
        )

    def stream(
        self, population: Population, most: int | None = None
    ) -> Iterator[tuple[int, Scores]]:
        """Yields (position of the first, scores) of consecutive experts, in order.

        `most` bounds the experts per call, so that a caller can log at least so often.
        """
        for chunk in self.map.chunks(population, most):
            found: Graded | None = None
            if self.grade is None:
                values, items = chunk.outputs["value"], chunk.outputs.get("items")
            else:
                found = graded(self.grade, chunk.outputs, chunk.stop - chunk.start)
                values, items = found.items.mean(1, dtype=np.float32), found.items
            failed = ~np.isfinite(values)
            values = np.where(failed, np.float32(-np.inf), values).astype(np.float32)
            if found is None or not self.keep_items:
                scores = Scores(values, failed, items if self.keep_items else None)
            else:
                scores = Scores(values, failed, items, found.answers, dict(found.columns))
            yield chunk.start, scores


@functools.lru_cache(maxsize=32)
def _scalar_and_items(score_fn: Callable[..., Any], keep_items: bool) -> Callable[..., Any]:
    """One function object per score function, so that compiled programs are found again."""

    def fn(*arguments: Any) -> dict[str, jax.Array]:
        result = jnp.asarray(score_fn(*arguments), jnp.float32)
        out = {"value": result.mean()}
        if keep_items:
            out["items"] = result
        return out

    return fn


def check_score(
    score_fn: Callable[..., Any], params: Any, batch: Any, with_id: bool = False
) -> bool:
    """Checks by shapes alone that a score is floating [] or [B]; returns whether it is [B].

    Raises:
      ScoreError: another shape, or not floating.
    """
    result = jax.eval_shape(score_fn, params, batch, *((np.int32(0),) if with_id else ()))
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
