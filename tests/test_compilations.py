"""How often a search compiles: once, and not again for other data or fewer experts."""

import classifier
import elementwise
import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.mapping import programs


@pytest.fixture
def compilations(caplog):
    """Returns the names of the programs compiled so far, from JAX's own log of them."""
    with jax.log_compiles():
        yield lambda: [m for m in caplog.messages if m.startswith("Compiling ")]


def test_one_compilation_for_a_search_and_none_for_the_next(compilations):
    def score_fn(params, batch):
        return jnp.tanh(linear.per_item(params, batch))

    experts, fewer = linear.population(300), linear.population(250)
    # The programs around it, once.
    tj.score(score_fn, linear.PARAMS, linear.population(16), linear.BATCH, block_size=2)
    before = len(compilations())

    def another(params, batch):
        return jnp.sin(linear.per_item(params, batch))

    tj.score(another, linear.PARAMS, experts, linear.BATCH, block_size=2)
    assert len(compilations()) == before + 1
    other_data = {"x": np.asarray(linear.BATCH["x"]) + np.float32(1)}
    again = tj.score(another, linear.PARAMS, fewer, other_data, block_size=2)
    assert len(compilations()) == before + 1 and len(again) == 250


def test_the_same_map_on_other_data_compiles_nothing(compilations):
    ready = linear.mapped_linear(block_size=2)
    ready.prepare(linear.population())
    list(ready.chunks(linear.population()))
    before = len(compilations())
    moved = ready.on({"x": np.asarray(linear.BATCH["x"]) * 2})
    (chunk,) = moved.chunks(linear.population())
    assert len(compilations()) == before
    (old,) = ready.chunks(linear.population())
    np.testing.assert_allclose(chunk.outputs, 2 * old.outputs, rtol=1e-6)


def test_all_rounds_are_one_program(monkeypatch):
    compiled, compile_ = [], programs._compile

    def count(*arguments):
        compiled.append(arguments)
        return compile_(*arguments)

    def score_fn(params, batch):  # a function that no other test has had compiled
        return classifier.likelihood(params, batch)

    monkeypatch.setattr(programs, "_compile", count)
    experts = tj.population(classifier.KEY, classifier.N, 0.3)
    arguments = (classifier.params(), experts, classifier.batch(), classifier.K)
    found = tj.halving(score_fn, *arguments, budget=0.3, **classifier.OPTIONS)
    assert len(found.rounds) == 3 and len(compiled) == 1


def test_batches_of_several_shapes_compile_once_each():
    experts, traced = elementwise.experts(), []

    def counted(params, batch):
        traced.append(batch.shape)
        return elementwise.apply(params, batch)

    predict = tj.ensemble(
        counted, elementwise.PARAMS, experts, combine=tj.mean, backend="none", block_size=2
    )
    for size in (4, 2):
        batch = jnp.arange(1.0, size + 1)
        rows = elementwise.expected_rows(experts, batch)
        np.testing.assert_allclose(predict(batch), rows.mean(0), rtol=1e-5, atol=1e-6)
    seen = len(traced)
    assert set(traced) == {(4,), (2,)}
    for size in (2, 4):
        batch = -jnp.arange(1.0, size + 1)
        rows = elementwise.expected_rows(experts, batch)
        np.testing.assert_allclose(predict(batch), rows.mean(0), rtol=1e-5, atol=1e-6)
    assert len(traced) == seen
