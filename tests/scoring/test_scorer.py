"""Scoring: shapes, one compilation, host grading, failures, memory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.ensembles.prediction import Predictor
from thicket_jax.errors import ArgumentError, MemoryLimitError, ScoreError
from thicket_jax.mapping import blocks, devices
from thicket_jax.scoring import scorer as scoring
from thicket_jax.scoring.scores import Graded, concatenate

PARAMS = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3,)), jnp.float32)}
BATCH = {"x": jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)}


def per_item(params, batch):
    return batch["x"] @ params["w"]


def scalar(params, batch):
    return per_item(params, batch).mean()


def population(num=13, sigma=0.1):
    return tj.population(jax.random.key(0), num, sigma)


@pytest.fixture
def compilations(caplog):
    """Returns the names of the programs compiled so far, from JAX's own log of them."""
    with jax.log_compiles():
        yield lambda: [m for m in caplog.messages if m.startswith("Compiling ")]


def test_scores_equal_a_python_loop_over_experts():
    experts = population()
    scores = tj.score(per_item, PARAMS, experts, BATCH)
    slow = np.stack([np.asarray(per_item(tj.perturb(PARAMS, e), BATCH)) for e in experts])
    np.testing.assert_allclose(scores.items, slow, atol=1e-6)
    np.testing.assert_allclose(scores.values, slow.mean(1), atol=1e-6)
    assert scores.values.dtype == np.float32 and not scores.failed.any()


def test_scalar_scores_have_no_items_and_items_can_be_dropped():
    experts = population()
    one = tj.score(scalar, PARAMS, experts, BATCH)
    dropped = tj.score(per_item, PARAMS, experts, BATCH, keep_items=False)
    assert one.items is None and dropped.items is None
    np.testing.assert_allclose(one.values, dropped.values, atol=1e-6)


@pytest.mark.parametrize("num", [1, 7, 8, 9, 64, 131])
def test_any_number_of_experts_on_eight_devices(num):
    """N need not be a multiple of devices, blocks or calls: the padding is never seen."""
    experts = population(131)[:num]
    scores = tj.score(per_item, PARAMS, experts, BATCH, block_size=2)
    slow = np.asarray(
        jax.vmap(
            lambda e: per_item(tj.perturb(PARAMS, e), BATCH),
            in_axes=(tj.Population(None, 0, 0, 0, experts.noise),),
        )(experts)
    )
    np.testing.assert_allclose(scores.items, slow, atol=1e-6)


def test_one_compilation_for_a_search_and_none_for_the_next(compilations):
    def score_fn(params, batch):
        return jnp.tanh(per_item(params, batch))

    experts, fewer = population(300), population(250)
    tj.score(score_fn, PARAMS, population(16), BATCH, block_size=2)  # helper programs, once
    before = len(compilations())

    def another(params, batch):
        return jnp.sin(per_item(params, batch))

    tj.score(another, PARAMS, experts, BATCH, block_size=2)
    assert len(compilations()) == before + 1
    other_data = {"x": np.asarray(BATCH["x"]) + np.float32(1)}
    again = tj.score(another, PARAMS, fewer, other_data, block_size=2)
    assert len(compilations()) == before + 1 and len(again) == 250


def test_params_and_data_are_put_on_the_devices_once():
    """While calls run, nothing may be transferred implicitly; shared arguments stay put."""
    mapper = devices.mapper()
    ready = blocks.expert_map(per_item, PARAMS, BATCH, population(100), mapper=mapper, block_size=1)
    experts = population(100)
    placed = [id(leaf) for leaf in jax.tree.leaves(ready.shared)]
    with jax.transfer_guard_host_to_device("disallow"):
        chunks = list(ready.chunks(experts))
    assert len(chunks) > 1
    assert placed == [id(leaf) for leaf in jax.tree.leaves(ready.shared)]
    for leaf in jax.tree.leaves(ready.shared[:2]):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 8


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_nothing_crosses_between_devices(backend):
    """The compiled program has no collective at all: only the scores leave, at the end."""
    ready = blocks.expert_map(
        per_item, PARAMS, BATCH, population(), mapper=devices.mapper(None, backend), block_size=2
    )
    text = ready._program()[0].as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective", "reduce-scatter", "send("):
        assert word not in text
    assert "dot" in text or "fusion" in text


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

    scorer = scoring.Scorer(
        with_id, PARAMS, experts, BATCH, mapper=devices.mapper(), block_size=2, with_id=True
    )
    found = concatenate([part for _, part in scorer.stream(experts)])
    np.testing.assert_array_equal(found.values, np.arange(7, 40))
    predict = Predictor(
        with_id, PARAMS, experts, block_size=2, mapper=devices.mapper(), with_id=True
    )
    np.testing.assert_array_equal(predict(BATCH)[:, 0], np.arange(7, 40))
    with pytest.raises(TypeError, match="expert"):
        scoring.Scorer(with_id, PARAMS, experts, BATCH, mapper=devices.mapper())


def test_the_same_map_on_other_data_compiles_nothing(compilations):
    ready = blocks.expert_map(
        per_item, PARAMS, BATCH, population(), mapper=devices.mapper(), block_size=2
    )
    ready.prepare()
    list(ready.chunks(population()))
    before = len(compilations())
    moved = ready.on({"x": np.asarray(BATCH["x"]) * 2})
    (chunk,) = moved.chunks(population())
    assert len(compilations()) == before
    (old,) = ready.chunks(population())
    np.testing.assert_allclose(chunk.outputs, 2 * old.outputs, rtol=1e-6)


def test_a_grader_of_the_wrong_shape_is_refused():
    with pytest.raises(ScoreError, match=r"grade returned .* return float32"):
        tj.score(per_item, PARAMS, population(), BATCH, grade=lambda out: out[0])


def test_nan_and_infinity_are_failures_and_everyone_else_is_kept():
    experts = population(40)

    def sometimes(params, batch):
        value = per_item(params, batch)
        bad = jnp.where(params["w"][0] > PARAMS["w"][0], jnp.nan, jnp.inf)
        return jnp.where(jnp.abs(params["w"][0] - PARAMS["w"][0]) > 0.1, bad, value)

    scores = tj.score(sometimes, PARAMS, experts, BATCH)
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


@pytest.mark.parametrize("block_size", [0, -1, 2.5, "many", True])
def test_a_block_size_that_is_none(block_size):
    with pytest.raises(ArgumentError, match="block_size=.* must be a whole number"):
        tj.score(per_item, PARAMS, population(), BATCH, block_size=block_size)


def test_an_unknown_backend():
    with pytest.raises(ArgumentError, match="backend='vmap' is unknown; choose one of: pmap"):
        tj.score(per_item, PARAMS, population(), BATCH, backend="vmap")


def out_of_memory(text="RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes."):
    return jax.errors.JaxRuntimeError(text)


def test_out_of_memory_halves_the_block_and_goes_on(monkeypatch):
    """A fault at the seam: blocks above 2 never fit, and those of 2 stop fitting after a while."""
    real, sizes = devices.launch, []

    def launch(program, *arguments):
        block = arguments[4].shape[-1]
        sizes.append(block)
        if block > 2 or (block == 2 and sizes.count(2) > 1):
            raise out_of_memory()
        return real(program, *arguments)

    experts = population(200)
    expected = tj.score(per_item, PARAMS, experts, BATCH, block_size=1)
    monkeypatch.setattr(devices, "launch", launch)
    scores = tj.score(per_item, PARAMS, experts, BATCH, block_size=16)
    assert sorted(set(sizes), reverse=True) == [16, 8, 4, 2, 1]
    np.testing.assert_allclose(scores.items, expected.items, atol=1e-6)


def test_one_expert_that_does_not_fit_is_one_clear_line(monkeypatch):
    def launch(program, *arguments):
        raise out_of_memory()

    monkeypatch.setattr(devices, "launch", launch)
    with pytest.raises(MemoryLimitError, match="one expert at a time") as caught:
        tj.score(per_item, PARAMS, population(), BATCH, block_size=4)
    assert "\n" not in str(caught.value)


def test_auto_refuses_a_batch_whose_program_needs_more_than_is_free(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda device: 10)
    with pytest.raises(MemoryLimitError, match="does not fit .* it needs .* bytes"):
        tj.score(per_item, PARAMS, population(), BATCH)


def test_other_runtime_errors_are_not_swallowed(monkeypatch):
    def launch(program, *arguments):
        raise out_of_memory("INTERNAL: something else")

    monkeypatch.setattr(devices, "launch", launch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        tj.score(per_item, PARAMS, population(), BATCH, block_size=4)


def test_auto_takes_the_largest_block_that_fits(monkeypatch):
    def block(limit):
        monkeypatch.setattr(devices, "working_bytes", lambda device: limit)
        ready = blocks.expert_map(
            products, {"w": jnp.zeros((64, 64))}, None, population(4096), mapper=one
        )
        return ready.block, devices.program_bytes(ready._program()[0])[1]

    def products(params, batch):
        del batch
        return jnp.tanh(params["w"] @ params["w"]).sum(0)

    one = devices.mapper(jax.devices()[:1])
    small, large = block(2**17), block(2**20)
    assert 1 <= small[0] < large[0]
    assert small[1] <= 2**18 and large[1] <= 2**21


def test_progress_is_told_of_every_expert():
    seen = []
    tj.score(per_item, PARAMS, population(50), BATCH, progress=lambda *p: seen.append(p))
    assert seen[-1] == (50, 50) and all(a < b for (a, _), (b, _) in itertools.pairwise(seen))
