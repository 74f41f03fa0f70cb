"""Scoring: shapes, host grading, failures."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from linear import BATCH, PARAMS, per_item, population, scalar

import thicket_jax as tj
from thicket_jax.ensembles.prediction import Predictor
from thicket_jax.errors import ScoreError
from thicket_jax.mapping.placement import place
from thicket_jax.scoring.scores import Graded, concatenate


def test_scores_equal_a_python_loop_over_experts():
    experts = population()
    scores = tj.score(per_item, PARAMS, experts, BATCH, block_size=2)
    slow = np.stack([np.asarray(per_item(tj.perturb(PARAMS, e), BATCH)) for e in experts])
    np.testing.assert_allclose(scores.items, slow, atol=1e-6)
    np.testing.assert_allclose(scores.values, slow.mean(1), atol=1e-6)
    assert scores.values.dtype == np.float32 and not scores.failed.any()


def test_scalar_scores_have_no_items_and_items_can_be_dropped():
    experts = population()
    one = tj.score(scalar, PARAMS, experts, BATCH, block_size=2)
    dropped = tj.score(per_item, PARAMS, experts, BATCH, block_size=2, keep_items=False)
    assert one.items is None and dropped.items is None
    np.testing.assert_allclose(one.values, dropped.values, atol=1e-6)


def test_grading_on_the_host():
    experts = population(30)
    seen = []

    def answers(params, batch):
        return jnp.round(per_item(params, batch)).astype(jnp.int32)

    def grade(outputs):
        assert isinstance(outputs, np.ndarray) and outputs.shape[1:] == (5,)
        seen.append(len(outputs))
        return (outputs % 2 == 0).astype(np.float32)

    scores = tj.score(answers, PARAMS, experts, BATCH, grade=grade, block_size=1)
    slow = np.stack([np.asarray(answers(tj.perturb(PARAMS, e), BATCH)) for e in experts])
    np.testing.assert_array_equal(scores.items, (slow % 2 == 0).astype(np.float32))
    assert sum(seen) == 30 and len(seen) > 1


def test_a_grade_may_record_answers_and_columns():
    experts = population(30)

    def grade(outputs):
        items = np.where(outputs[:, :1] > outputs[0, 0], np.nan, outputs).astype(np.float32)
        texts = outputs.astype(str).astype(object)
        return Graded(items, texts, {"twice": 2 * outputs}, texts)

    scores = tj.score(per_item, PARAMS, experts, BATCH, grade=grade, block_size=1)
    assert scores.answers.shape == (30, 5) and scores.answers.dtype == object
    np.testing.assert_array_equal(scores.columns["twice"], 2 * scores.answers.astype(np.float32))
    assert scores.columns["twice"].dtype == np.float32
    np.testing.assert_array_equal(scores.failed, np.isnan(scores.items).any(1))
    assert 0 < scores.failed.sum() < 30 and np.isneginf(scores.values[scores.failed]).all()
    dropped = tj.score(
        per_item, PARAMS, experts, BATCH, grade=grade, block_size=1, keep_items=False
    )
    assert (dropped.items, dropped.answers, dropped.columns) == (None, None, {})


def test_a_function_may_take_the_expert_s_id():
    """Under vmap, padding and several devices every expert sees its own id."""
    experts = population(50)[7:40]

    def with_id(params, batch, expert):
        return jnp.zeros(5) + expert.astype(jnp.float32) + 0 * per_item(params, batch)

    placement = place(PARAMS, block_size=2)
    scorer = tj.Scorer.placed(with_id, PARAMS, experts.noise, BATCH, placement, with_id=True)
    found = concatenate([part for _, part in scorer.stream(experts)])
    np.testing.assert_array_equal(found.values, np.arange(7, 40))
    predict = Predictor(with_id, PARAMS, experts, placement, with_id=True)
    np.testing.assert_array_equal(predict(BATCH)[:, 0], np.arange(7, 40))
    with pytest.raises(TypeError, match="expert"):
        tj.Scorer(with_id, PARAMS, experts, BATCH)


def test_a_grader_of_the_wrong_shape_is_refused():
    with pytest.raises(ScoreError, match=r"grade returned .* return float32"):
        tj.score(per_item, PARAMS, population(), BATCH, grade=lambda out: out[0], block_size=2)


def test_nan_and_infinity_are_failures_and_everyone_else_is_kept():
    experts = population(40)

    def sometimes(params, batch):
        value = per_item(params, batch)
        bad = jnp.where(params["w"][0] > PARAMS["w"][0], jnp.nan, jnp.inf)
        return jnp.where(jnp.abs(params["w"][0] - PARAMS["w"][0]) > 0.1, bad, value)

    scores = tj.score(sometimes, PARAMS, experts, BATCH, block_size=2)
    assert 0 < scores.failed.sum() < 40
    assert np.isneginf(scores.values[scores.failed]).all()
    assert np.isfinite(scores.values[~scores.failed]).all()
    kept = tj.top_k(experts, scores, int((~scores.failed).sum()))
    assert set(np.asarray(kept.ids)) == set(np.flatnonzero(~scores.failed))


@pytest.mark.parametrize(
    ("score_fn", "found"),
    [
        (lambda p, b: b["x"] @ p["w"][:, None], r"float32\[5, 1\]; return \[\] or \[5\]"),
        (lambda p, b: p["w"], r"float32\[3\]; return \[\] or \[5\]"),
        (lambda p, b: b["x"] @ p["w"] > 0, r"bool\[5\]; scores must be floating"),
        (lambda p, b: (b["x"] @ p["w"]).astype(jnp.int32), r"int32\[5\]; scores must be floating"),
        (lambda p, b: {"score": p["w"].sum()}, "returned a dict; return one array"),
        (lambda p, b: None, "returned a NoneType; return one array"),
    ],
    ids=["matrix", "wrong length", "bool", "integer", "dict", "nothing"],
)
def test_a_score_function_that_returns_no_score(score_fn, found):
    with pytest.raises(ScoreError, match=found) as caught:
        tj.score(score_fn, PARAMS, population(), BATCH)
    assert "\n" not in str(caught.value)


def test_progress_is_told_of_every_expert():
    seen = []
    how = {"block_size": 2, "progress": lambda *p: seen.append(p)}
    tj.score(per_item, PARAMS, population(50), BATCH, **how)
    assert seen[-1] == (50, 50) and all(a < b for (a, _), (b, _) in itertools.pairwise(seen))
