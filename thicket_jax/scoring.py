"""One expert → a score; a population → Scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax import devices as dv
from thicket_jax.blocks import expert_map
from thicket_jax.errors import ScoreError, ThicketError
from thicket_jax.experts import Population, check_experts
from thicket_jax.perturbation import plan

ScoreFn = Callable[[Any, Any], Any]
"""`(params, batch) -> float [] or [B]`; pure; higher is better; [B] are per-item outcomes."""


@dataclasses.dataclass(frozen=True)
class Graded:
    """What a grade may return instead of a bare float32 [n, B].

    Attributes:
      items: float32 [n, B], outcomes, higher is better; NaN: this expert failed.
      answers: object [n, B] of `str` or None, canonical answers; equal strings are one answer.
      columns: name → float32 [n, B], further outcomes; `tokens`, generated tokens, is one. A
        grade returns the same names every time.
      texts: object [n, B] of `str`, what was answered in full; not kept for training items.
    """

    items: np.ndarray
    answers: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: np.ndarray | None = None


Grade = Callable[[Any], np.ndarray | Graded]
"""`outputs [n, B, ...] -> float32 [n, B]` or `Graded`, on the host; higher is better."""

Progress = Callable[[int, int], None]
"""Called with (experts done, experts in all)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """The outcome of scoring N experts. A registered pytree of numpy arrays.

    Attributes:
      values: float32 [N], higher is better; −inf where failed.
      failed: bool [N]: the score was NaN or infinite. A failed expert ranks last.
      items: float32 [N, B], per-item outcomes as scored, or None.
      answers: object [N, B] of `str` or None, canonical answers, where a grade reads them.
      columns: name → float32 [N, B], what else a grade recorded.
      seen: int32 [N], the number of items that each value is the mean of, where experts were
        selected in rounds; None where every expert was scored on all. Items that an expert did
        not see are NaN in `items` and `columns`, None in `answers`.
    """

    values: np.ndarray
    failed: np.ndarray
    items: np.ndarray | None = None
    answers: np.ndarray | None = None
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seen: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of experts, N."""
        return len(self.values)


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


def concatenate(parts: Sequence[Scores]) -> Scores:
    """Joins the scores of consecutive experts.

    Raises:
      ScoreError: a grade recorded other columns for some of them than for others.
    """
    return Scores(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.failed for part in parts]),
        joined([part.items for part in parts]),
        joined([part.answers for part in parts]),
        joined_columns([part.columns for part in parts]),
    )


def joined(parts: Sequence[np.ndarray | None], axis: int = 0) -> np.ndarray | None:
    """Joins arrays; None unless all are there."""
    held = [part for part in parts if part is not None]
    return np.concatenate(held, axis) if len(held) == len(parts) else None


def joined_columns(
    parts: Sequence[Mapping[str, np.ndarray]], axis: int = 0
) -> dict[str, np.ndarray]:
    """Joins columns name by name; different names are a `ScoreError`."""
    for columns in parts:
        if columns.keys() != parts[0].keys():
            raise ScoreError(
                f"grade recorded the columns {_listed(parts[0])} for some experts and "
                f"{_listed(columns)} for others; let it record the same for every expert"
            )
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}


def _listed(columns: Mapping[str, np.ndarray]) -> str:
    return ", ".join(columns) or "(none)"


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


def graded(grade: Grade, outputs: Any, count: int) -> Graded:
    """Returns what a grade makes of the outputs of `count` experts, checked.

    Raises:
      ScoreError: the grade raised something that is no `ThicketError`, or returned the wrong
        shapes or kinds.
    """
    try:
        found = grade(outputs)
    except ThicketError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ScoreError(f"grade raised {type(error).__name__}: {said}") from error
    if not isinstance(found, Graded):
        found = Graded(found)
    items = np.asarray(found.items)
    if items.ndim != 2 or items.shape[0] != count or not np.issubdtype(items.dtype, np.floating):
        raise ScoreError(
            f"grade returned {items.dtype}{list(items.shape)} for {count} experts; return float32 "
            f"[{count}, B], one row per expert"
        )
    columns = {name: np.asarray(column) for name, column in found.columns.items()}
    shapes = {f"columns[{name!r}]": column.shape for name, column in columns.items()}
    for name, texts in (("answers", found.answers), ("texts", found.texts)):
        if texts is None:
            continue
        shapes[name] = np.shape(texts)
        wrong = {type(x).__name__ for x in np.asarray(texts, object).flat if not _is_text(x)}
        if wrong:
            raise ScoreError(
                f"grade returned {name} with {', '.join(sorted(wrong))}; each must be a str or None"
            )
    for name, shape in shapes.items():
        if shape != items.shape:
            raise ScoreError(
                f"grade returned {name} {list(shape)} beside items {list(items.shape)}; return one "
                "entry per expert and item"
            )
    return Graded(
        items.astype(np.float32),
        None if found.answers is None else np.asarray(found.answers, object),
        {name: column.astype(np.float32) for name, column in columns.items()},
        None if found.texts is None else np.asarray(found.texts, object),
    )


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


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
