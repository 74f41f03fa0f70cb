"""Who answers the test items, and answers that are read on the host as classes to vote with.

The kept experts answer, and what they are compared with. Where the host reads answers, that is at
equal cost of inference: the base, as many experts that nobody selected, and as many samples of the
base, all by the program that scored the experts. Shapes: K kept experts, M rows of answers in all,
B test items, C classes.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.ensembles.combine import RULES, with_weights
from thicket_jax.ensembles.prediction import Predictor, check_prediction
from thicket_jax.errors import ArgumentError, ScoreError
from thicket_jax.experts.population import Population, unperturbed
from thicket_jax.mapping.functions import mapped, output_shapes
from thicket_jax.scoring.metrics import METRICS
from thicket_jax.scoring.scorer import ScorerProtocol
from thicket_jax.scoring.scores import Graded, Scores, graded, joined, joined_columns
from thicket_jax.search.problem import Answering, Problem
from thicket_jax.selection.ranking import ranking

_RANDOM_EXPERTS = 8  # unselected experts whose test answers are kept beside the best ones'


def random_control(experts: Population, kept: Population) -> Population:
    """Returns fresh experts at the kept experts' sigmas, one by one, with ids that none has."""
    first = int(np.asarray(experts.ids).max()) + 1
    ids = jnp.asarray(np.arange(first, first + len(kept), dtype=np.int32))
    return dataclasses.replace(kept, ids=ids, signs=jnp.ones_like(kept.signs))


def base_samples(like: Population, count: int) -> Population:
    """Returns θ `count` times, under the ids 0, 1, ..., from which the sampling is keyed."""
    return Population(
        key=like.key,
        ids=jnp.asarray(np.arange(count, dtype=np.int32)),
        sigmas=jnp.zeros(count, jnp.float32),
        signs=jnp.ones(count, jnp.float32),
        noise=like.noise,
    )


def check(problem: Problem) -> None:
    """Raises unless test answers can be made, combined and graded, as far as shapes tell.

    Raises:
      ArgumentError: parts of `problem.answering` that do not go together; predictions that a
        combine rule or the metric of the package cannot take.
      ScoreError: predictions that are not one array [B, ...].
    """
    how = problem.answering
    if how is None:
        _check_predictions(problem)
        return
    if problem.grade is None:
        raise ArgumentError("answering needs grade, which reads the same outputs on train items")
    if problem.predict_fn is not None or problem.test is not None or problem.targets is not None:
        raise ArgumentError("answering takes the place of predict_fn, test and targets; give one")
    if not how.pieces or len(how.sizes) != len(how.pieces):
        raise ArgumentError(
            f"answering has {len(how.pieces)} pieces and {len(how.sizes)} sizes; give a size for "
            "each piece, and at least one"
        )
    if how.sampled and (len(how.sampled) != len(how.pieces) or not problem.with_id):
        raise ArgumentError(
            "answering.sampled must be the same pieces as answering.pieces, for a score function "
            "that takes ids (with_id=True)"
        )


def _check_predictions(problem: Problem) -> None:
    """Finds out before the work that the metric refuses what the rules would make of answers."""
    if problem.predict_fn is None or problem.test is None:
        return
    call = mapped(problem.predict_fn, problem.with_id).call
    found = output_shapes(call, problem.params, problem.test)
    check_prediction(found)
    if problem.targets is None or not _is_one_of(problem.metric, METRICS.values()):
        return
    rules = problem.combines.items()
    known = {name: rule for name, rule in rules if _is_one_of(rule, RULES.values())}
    kept = jax.ShapeDtypeStruct((2, *found.shape), found.dtype)
    joined = {name: with_weights(rule, np.ones(2)) for name, rule in known.items()}
    for answers in (found, *(jax.eval_shape(rule, kept) for rule in joined.values())):
        problem.metric.per_item(np.zeros(answers.shape, answers.dtype), problem.targets)


def _is_one_of(value: Any, known: Iterable[Any]) -> bool:
    """Whether it is one of these itself: a user's own may compare as it likes."""
    return any(value is x for x in known)


def answer(
    problem: Problem,
    experts: Population,
    scores: Scores,
    kept: Population,
    scorer: ScorerProtocol,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Returns everybody's answers on the test items, as fields of `RunRecord`; {} without a test.

    Args:
      problem: what is searched.
      experts: all N.
      scores: of all N.
      kept: the best K, best first.
      scorer: what scored them.
      tell: called with (answers read, of how many), where the host reads them.

    Raises:
      ScoreError: what `problem.answering` reads does not fit together.
    """
    if problem.answering is not None:
        return _read_on_host(problem.answering, experts, kept, scorer, tell)
    if problem.predict_fn is None or problem.test is None:
        return {}
    unselected = np.sort(ranking(scores)[len(kept) :])
    unselected = unselected[~scores.failed[unselected]][:_RANDOM_EXPERTS]
    everyone = kept + unperturbed(experts) + experts[unselected]
    predictor = Predictor(
        problem.predict_fn, problem.params, everyone, scorer.predicting, with_id=problem.with_id
    )
    out, K = np.asarray(predictor(problem.test)), len(kept)
    return {
        "answers": out[:K],
        "base_answers": out[K],
        "random_answers": out[K + 1 :],
        "targets": problem.targets,
    }


def _read_on_host(
    how: Answering,
    experts: Population,
    kept: Population,
    scorer: ScorerProtocol,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Reads outputs call by call: memory is one call's, M×B answers, and (K + 1)×B texts."""
    K = len(kept)
    everyone = kept + unperturbed(kept) + random_control(experts, kept)
    done, total = 0, sum(how.sizes) * (len(everyone) + (K if how.sampled else 0))
    tell(done, total)

    def count(answers: int) -> None:
        nonlocal done
        done += answers
        tell(done, total)

    found = [_read(how, how.pieces, everyone, scorer, K + 1, count)]
    if how.sampled:
        found.append(_read(how, how.sampled, base_samples(kept, K), scorer, 0, count))
    strings = np.concatenate([part.answers for part in found if part.answers is not None])
    outcomes = np.concatenate([part.items for part in found])
    # A model that broke down on an item has no answer there.
    strings[~np.isfinite(outcomes)] = None
    classes = _classes(how, strings)
    columns, texts = found[0].columns, found[0].texts
    out = {
        "answers": classes[:K],
        "base_answers": classes[K],
        "random_answers": classes[K + 1 : 2 * K + 1],
        "targets": outcome_table(classes, outcomes),
        "strings": strings[:K],
        "base_strings": strings[K],
        "columns": {name: x[:K] for name, x in columns.items()},
        "base_columns": {name: x[K] for name, x in columns.items()},
        "random_columns": {name: x[K + 1 :] for name, x in columns.items()},
    }
    if texts is not None:
        out |= {"texts": texts[:K], "base_texts": texts[K]}
    if how.sampled:
        out |= {"sample_answers": classes[2 * K + 1 :], "sample_columns": dict(found[1].columns)}
    return out


def outcome_table(classes: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Returns float32 [B, C], the outcome of answering item b with class c; NaN for none.

    Where members of one class have different outcomes, the first row's is taken.

    Args:
      classes: int [M, B], best expert first; −1 abstains.
      outcomes: float [M, B].

    Example:
      >>> outcome_table(np.array([[0], [1], [0]]), np.array([[1.0], [0.0], [0.5]])).tolist()
      [[1.0, 0.0]]
    """
    M, B = classes.shape
    table = np.full((B, max(int(classes.max()) + 1, 1)), np.nan, np.float32)
    items = np.arange(B)
    for row in reversed(range(M)):
        here = classes[row] >= 0
        table[items[here], classes[row][here]] = outcomes[row][here]
    return table


def _read(
    how: Answering,
    pieces: Sequence[Any],
    experts: Population,
    scorer: ScorerProtocol,
    with_texts: int,
    count: Callable[[int], None],
) -> Graded:
    """What the experts answer to all pieces; texts of the first `with_texts` of them.

    `count` is told of the answers as they come.
    """
    whole = []
    for number, piece in enumerate(pieces):
        parts = []
        for chunk in scorer.on(piece).chunks(experts):
            read = functools.partial(how.read, number)
            part = graded(read, chunk.outputs, chunk.stop - chunk.start)
            if part.answers is None or part.items.shape[1] != how.sizes[number]:
                raise ScoreError(
                    f"read of piece {number} returned {part.items.shape[1]} items"
                    f"{'' if part.answers is not None else ' without answers'}; return "
                    f"{how.sizes[number]}, with their answers"
                )
            texts = None if part.texts is None else part.texts[: max(0, with_texts - chunk.start)]
            parts.append(dataclasses.replace(part, texts=texts))
            count(part.items.size)
        whole.append(_joined(parts, 0))
    return _joined(whole, 1)


def _joined(parts: Sequence[Graded], axis: int) -> Graded:
    items = joined([part.items for part in parts], axis)
    assert items is not None
    return Graded(
        items,
        joined([part.answers for part in parts], axis),
        joined_columns([part.columns for part in parts], axis),
        joined([part.texts for part in parts], axis),
    )


def _classes(how: Answering, strings: np.ndarray) -> np.ndarray:
    found = np.asarray(how.classes(strings))
    if found.shape != strings.shape or not np.issubdtype(found.dtype, np.integer):
        raise ScoreError(
            f"classes returned {found.dtype}{list(found.shape)} for answers {list(strings.shape)}; "
            "return int32 of the same shape"
        )
    absent = np.array([answer is None for answer in strings.flat], bool).reshape(strings.shape)
    return np.where(absent, -1, np.maximum(found, -1)).astype(np.int32)
