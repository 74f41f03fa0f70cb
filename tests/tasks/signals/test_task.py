"""Task signals: its data and options, the base and its cache, the figure."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks import registry, task
from thicket_jax.tasks.signals import model as signal_model
from thicket_jax.tasks.signals import task as signals


def options(**changes):
    settings = {"pretrain": "xavier", "train_items": 24, "test_items": 24}
    return signals.Options(**{**settings, **changes})


def test_the_task_is_registered_with_the_papers_defaults():
    module = registry.module("signals")
    default = module.Options()
    assert (default.pretrain, default.target) == ("mixed", "sinusoid")
    assert (default.num, default.k) == (1000, (10,))
    assert (default.train_items, default.test_items) == (1024, 256)
    assert isinstance(default, task.Options)
    assert callable(module.build)
    assert callable(module.draw)


@pytest.mark.parametrize("pretrain", signals.PRETRAINS)
def test_sigma_follows_the_base(pretrain):
    untrained = pretrain in ("xavier", "kaiming", "orthogonal")
    assert signals.Options(pretrain=pretrain).sigma == ()
    assert signals.Options(pretrain=pretrain).resolved().sigma == (
        (0.05,) if untrained else (0.002,)
    )
    mine = signals.Options(pretrain=pretrain, sigma=(0.1, 0.2))
    assert mine.resolved() == mine


def test_a_task_has_what_the_search_needs():
    task = signals.build(options(train_items=40))
    assert (task.name, task.problem.metric.name) == ("signals", "mse")
    assert tuple(task.problem.combines) == ("mean", "median")
    for batch, num in ((task.problem.train, 40), (task.problem.test, 24)):
        assert batch["context"].shape == (num, 10)
        assert batch["future"].shape == (num, 60)
    scores = jax.jit(task.problem.score_fn)(task.problem.params, task.problem.test)
    answers = jax.jit(task.problem.predict_fn)(task.problem.params, task.problem.test)
    answers = np.asarray(answers)
    assert answers.shape == task.problem.targets.shape == (24, 60)
    np.testing.assert_allclose(scores, -((answers - task.problem.targets) ** 2).mean(1), rtol=1e-4)
    assert (task.problem.targets == task.problem.test["future"]).all()
    assert (task.problem.exhibits["test_context"] == task.problem.test["context"]).all()
    assert "51,073 parameters" in task.model
    assert "xavier" in task.model
    assert task.notes == ()
    assert task.provenance == {"initialisation": "xavier", "iterations": 0, "cache": "not used"}


def bits(task):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(task.problem.params)]


def rows(batch):
    return {tuple(row) for row in np.concatenate([batch["context"], batch["future"]], 1).tolist()}


@pytest.mark.parametrize("target", ["sinusoid", "line", "mixed"])
def test_train_and_test_never_meet(target):
    task = signals.build(options(target=target))
    train, test = rows(task.problem.train), rows(task.problem.test)
    assert len(train) == len(test) == 24
    assert not train & test


def test_the_streams_are_keys_of_their_own():
    """None equals another, nor the key that an expert's noise or the sigmas come from."""
    root = jax.random.key(0)
    words = [
        tuple(np.asarray(jax.random.key_data(signals._stream(options(), name))).tolist())
        for name in ("train", "test", "base")
    ]
    assert len(set(words)) == 3
    experts = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(5000))
    taken = {tuple(w) for w in np.asarray(jax.random.key_data(experts)).tolist()}
    assert not taken & set(words)
    assert 2**31 <= signals._STREAMS < 2**32 - 1


def test_the_test_set_does_not_depend_on_the_train_set():
    small, large = (signals.build(options(train_items=n)) for n in (24, 40))
    assert (small.problem.targets == large.problem.targets).all()


def test_the_seed_changes_data_and_base():
    first, second = (signals.build(options(seed=seed)) for seed in (0, 1))
    assert not rows(first.problem.train) & rows(second.problem.train)
    kernels = [task.problem.params["layer_1"]["kernel"] for task in (first, second)]
    assert not (kernels[0] == kernels[1]).any()


def test_the_prng_of_the_experts_changes_neither_data_nor_base():
    first, second = (signals.build(options(prng=p)) for p in ("threefry2x32", "threefry4x32"))
    assert rows(first.problem.train) == rows(second.problem.train)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("target", ["one_line", "one_sigmoid"])
def test_a_one_target_says_that_training_and_test_coincide(target):
    task = signals.build(options(target=target))
    assert rows(task.problem.train) == rows(task.problem.test)
    assert len(rows(task.problem.train)) == 1
    assert any(target in note and "coincide" in note for note in task.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pretrain": "sine"}, r"pretrain='sine' is unknown.*line, .*mixed, xavier, kaiming"),
        ({"pretrain": "one_line"}, "pretrain='one_line' is unknown"),
        ({"target": "xavier"}, r"target='xavier' is unknown.*sinusoid.*one_sigmoid"),
        ({"target": "one_mixed"}, "target='one_mixed' is unknown"),
        ({"precision": "float16"}, r"precision='float16' is unknown.*float32, bfloat16"),
        ({"train_items": 0}, "train_items"),
        ({"test_items": -1}, "test_items"),
    ],
)
def test_bad_options_are_refused_in_one_line(change, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        signals.build(options(**change))
    assert "\n" not in str(caught.value)


def test_bfloat16_is_an_option():
    exact, rounded = (signals.build(options(precision=p)) for p in ("float32", "bfloat16"))
    assert rounded.problem.params["layer_0"]["kernel"].dtype == jnp.float32
    first, second = (
        np.asarray(jax.jit(t.problem.score_fn)(t.problem.params, t.problem.test))
        for t in (exact, rounded)
    )
    assert first.dtype == second.dtype == np.float32
    assert (first != second).any()
    np.testing.assert_allclose(first, second, rtol=0.1)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(signals, "ITERATIONS", 5)


@pytest.mark.usefixtures("short")
def test_the_base_is_cached_and_found_with_the_same_bits(tmp_path):
    chosen = options(pretrain="line", cache=str(tmp_path))
    made, found = signals.build(chosen), signals.build(chosen)
    assert [task.provenance["cache"] for task in (made, found)] == ["miss", "hit"]
    assert bits(made) == bits(found)
    assert made.provenance["iterations"] == 5
    for name in ("first_loss", "last_loss"):
        assert made.provenance[name] == found.provenance[name] > 0
    direct, losses = signal_model.pretrain(signals._stream(chosen, "base"), "line", 5)
    assert bits(made) == [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(direct)]
    assert made.provenance["first_loss"] == float(losses[0])


def test_what_changes_the_base_changes_its_cache_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "pretrain", lambda *_: ({"w": jnp.ones(2)}, jnp.ones(60)))
    chosen = options(pretrain="line", cache=str(tmp_path))
    signals.build(chosen)

    def state(**change):
        return signals.build(dataclasses.replace(chosen, **change)).provenance["cache"]

    assert state(target="mixed") == "hit"
    assert state(train_items=40, num=7, k=(1,), sigma=(0.3,), precision="bfloat16") == "hit"
    assert state(prng="threefry4x32") == "hit"
    assert state(seed=1) == "miss"
    assert state(pretrain="sinusoid") == "miss"


@pytest.mark.usefixtures("short")
def test_a_damaged_base_is_named(tmp_path):
    chosen = options(pretrain="line", cache=str(tmp_path))
    signals.build(chosen)
    (folder,) = tmp_path.iterdir()
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{folder.name} .*delete that folder"):
        signals.build(chosen)


def record(target="sinusoid", kept=10, randoms=12):
    task = signals.build(options(target=target))
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.2, size=(kept + randoms + 1, *task.problem.targets.shape))
    answers = task.problem.targets + noise.cumsum(-1)
    return types.SimpleNamespace(
        answers=answers[:kept],
        base_answers=answers[kept],
        random_answers=answers[kept + 1 :],
        targets=task.problem.targets,
        exhibits=task.problem.exhibits,
    )


def drawn(run, folder):
    ((name, caption),) = signals.draw(run, folder)
    content = (folder / name).read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) < 200_000
    return content, caption


def test_the_figure_shows_the_first_four_sequences(tmp_path):
    content, caption = drawn(record(), tmp_path / "figures")
    assert "first 4 test sequences" in caption
    other, _ = drawn(record("sawtooth"), tmp_path)
    assert content != other


@pytest.mark.parametrize(("kept", "randoms"), [(1, 0), (3, 1)])
def test_the_figure_of_a_single_signal_and_few_experts(tmp_path, kept, randoms):
    _, caption = drawn(record("one_squarewave", kept, randoms), tmp_path)
    assert "one test signal" in caption


def test_a_diverged_roll_out_does_not_spoil_the_figure(tmp_path):
    run = record()
    run.random_answers[0] = np.nan
    run.random_answers[1, :, 30:] = np.inf
    run.base_answers[:, 40:] = 1e30
    drawn(run, tmp_path)
