"""Task signals: the families, the model, the base and its cache, the figure."""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks import registry, task
from thicket_jax.tasks.signals import families
from thicket_jax.tasks.signals import model as signal_model
from thicket_jax.tasks.signals import task as signals

KEY = jax.random.key(11)
ROLL_OUT = jax.jit(signal_model.roll_out, static_argnums=2)
SCORE = jax.jit(signal_model.roll_out_score, static_argnums=2)


def curve(name, x, p):
    """The formula of a family at one x, in double precision."""
    if name == "line":
        return p["slope"] * x + p["intercept"]
    a, phase, offset = p["amplitude"], p["phase"], p["offset"]
    if name == "sinusoid":
        y = math.sin(4 * x + phase)
    elif name == "squarewave":
        y = math.tanh(p["sharpness"] * math.sin(4 * x + phase))
    elif name == "sawtooth":
        weights = (1, -1 / 2, 0.33, -1 / 4)
        y = sum(w * math.sin((n + 1) * (4 * x + phase)) for n, w in enumerate(weights)) / 2
    elif name == "harmonic":
        y = 0.5 * math.sin(4 * x + phase) + 0.3 * math.sin(8 * x)
    elif name == "sigmoid":
        y = math.tanh(x / 10 + phase)
    return a * y + offset


RANGES = {
    "line": {"slope": (-0.5, 0.5), "intercept": (-1, 1)},
    "sinusoid": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "squarewave": {
        "amplitude": (0.2, 0.4),
        "sharpness": (4, 6),
        "phase": (0, math.tau),
        "offset": (-0.5, 0.5),
    },
    "sawtooth": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "harmonic": {"amplitude": (0.8, 1.2), "phase": (0, math.tau), "offset": (-0.5, 0.5)},
    "sigmoid": {"amplitude": (0.5, 1.5), "phase": (-math.pi, math.pi), "offset": (-0.5, 0.5)},
}
FAMILIES = tuple(RANGES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_follows_its_formula(name):
    drawn = families.family_parameters(name, KEY, 5)
    batch = families.family_batch(name, KEY, 5, 70)
    assert batch.dtype == jnp.float32
    for row in range(5):
        parameters = {k: float(v[row, 0]) for k, v in drawn.items()}
        expected = [curve(name, -2.5 + 0.1 * t, parameters) for t in range(70)]
        np.testing.assert_allclose(batch[row], expected, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parameters_of_a_family_fill_their_ranges(name):
    num = 20_000
    drawn = families.family_parameters(name, KEY, num)
    assert set(drawn) == set(RANGES[name])
    columns = []
    for parameter, (low, high) in RANGES[name].items():
        unit = (np.asarray(drawn[parameter], np.float64)[:, 0] - low) / (high - low)
        assert -1e-6 <= unit.min() < 1e-3
        assert 1 - 1e-3 < unit.max() <= 1 + 1e-6
        assert abs(unit.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / num)
        assert abs(unit.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / num)
        columns.append(unit)
    off_diagonal = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(num)


def test_mixed_draws_one_of_the_six_per_sequence():
    """Each family is told by what it alone satisfies, from the points themselves."""
    num = 6000
    mixed = np.asarray(families.family_batch("mixed", KEY, num, 158), np.float64)
    counts = dict.fromkeys(FAMILIES, 0)
    phase = 4 * (-2.5 + 0.1 * np.arange(158))
    waves = [np.ones(158), *(f(n * phase) for n in range(1, 5) for f in (np.sin, np.cos))]
    fit, *_ = np.linalg.lstsq(np.stack(waves, 1), mixed.T, rcond=None)
    residual = np.abs(mixed.T - np.stack(waves, 1) @ fit).max(0)
    size = np.hypot(fit[1::2], fit[2::2])  # of the harmonics 1 to 4
    for row in range(num):
        if np.abs(np.diff(mixed[row], 2)).max() < 1e-5:
            counts["line"] += 1
        elif (np.diff(np.sign(np.diff(mixed[row]))) == 0).all() or np.ptp(mixed[row]) < 0.01:
            counts["sigmoid"] += 1
        elif residual[row] > 1e-3:
            counts["squarewave"] += 1
        elif size[1, row] < 1e-3:
            counts["sinusoid"] += 1
        elif size[2, row] < 1e-3:
            counts["harmonic"] += 1
        else:
            counts["sawtooth"] += 1
    expected, spread = num / 6, math.sqrt(num * 5 / 36)
    # A sigmoid far out on its shoulder is a line to single precision, so the two are pooled.
    pooled = counts.pop("line") + counts.pop("sigmoid")
    assert abs(pooled - 2 * expected) < 5 * math.sqrt(num * 2 / 9)
    assert all(abs(count - expected) < 5 * spread for count in counts.values()), counts


ONES = {
    "line": {"slope": -0.25, "intercept": 0},
    "sinusoid": {"amplitude": 0.5, "phase": 0, "offset": 0},
    "squarewave": {"amplitude": 0.3, "sharpness": 5, "phase": 0, "offset": 0},
    "sawtooth": {"amplitude": 1, "phase": 0, "offset": 0},
    "harmonic": {"amplitude": 1, "phase": 0, "offset": 0},
    "sigmoid": {"amplitude": 1, "phase": 0, "offset": 0},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_one_signal_is_the_same_whatever_the_key(name):
    batch = np.asarray(families.family_batch("one_" + name, KEY, 3, 70))
    other = np.asarray(families.family_batch("one_" + name, jax.random.key(0), 1, 70))
    expected = [curve(name, -2.5 + 0.1 * t, ONES[name]) for t in range(70)]
    np.testing.assert_allclose(batch[0], expected, atol=2e-5)
    assert (batch == other).all()


def test_a_batch_is_a_function_of_its_key():
    first, again, other = (
        np.asarray(families.family_batch("mixed", jax.random.key(seed), 32, 11))
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not (first == other).any()


@pytest.mark.parametrize("name", ["sine", "one_mixed", "xavier", "", "Line"])
def test_an_unknown_family_is_refused_with_the_known(name):
    with pytest.raises(ArgumentError, match=r"line, sinusoid, .*mixed, one_line"):
        families.family_batch(name, KEY, 2, 11)


def slow_roll_out(params, context, steps):
    """One sequence, one value at a time, in double precision."""
    layers = [params[f"layer_{i}"] for i in range(5)]
    window = [float(v) for v in context]
    for _ in range(steps):
        hidden = np.array(window[-10:])
        for index, layer in enumerate(layers):
            kernel = np.asarray(layer["kernel"], np.float64)
            hidden = hidden @ kernel + np.asarray(layer["bias"], np.float64)
            if index < 4:
                hidden = np.where(hidden > 0, hidden, 0)
        window.append(float(hidden[0]))
    return np.array(window[10:])


@pytest.fixture(scope="module")
def trained():
    """A base that has learnt a little, so that roll-outs neither vanish nor explode."""
    return signal_model.pretrain(jax.random.key(2), "mixed", 100, 64)


@pytest.fixture(scope="module")
def batch():
    points = families.family_batch("sinusoid", jax.random.key(4), 6, 70)
    return {"context": points[:, :10], "future": points[:, 10:]}


def biased(params):
    """The same parameters with biases that are not nearly zero."""
    return {
        name: {"kernel": layer["kernel"], "bias": layer["bias"] + 0.01}
        for name, layer in params.items()
    }


def test_roll_out_and_score_equal_the_slow_reference(trained, batch):
    params = biased(trained[0])
    expected = np.stack([slow_roll_out(params, c, 60) for c in np.asarray(batch["context"])])
    answers = ROLL_OUT(params, batch, jnp.float32)
    assert answers.dtype == jnp.float32
    np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-3)
    errors = ((expected - np.asarray(batch["future"])) ** 2).mean(1)
    scores = SCORE(params, batch, jnp.float32)
    assert (scores.shape, scores.dtype) == ((6,), jnp.float32)
    np.testing.assert_allclose(scores, -errors, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_score_is_the_error_of_the_prediction(trained, batch, dtype):
    answers = np.asarray(ROLL_OUT(trained[0], batch, dtype))
    errors = ((answers - np.asarray(batch["future"])) ** 2).mean(1)
    scores = SCORE(trained[0], batch, dtype)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, -errors, rtol=1e-4 if dtype == jnp.float32 else 0.05)


def test_bfloat16_computes_the_products_in_bfloat16(trained, batch):
    def dots(dtype):
        text = str(
            jax.make_jaxpr(lambda p: signal_model.roll_out_score(p, batch, dtype))(trained[0])
        )
        return [line for line in text.splitlines() if "dot_general" in line]

    assert len(dots(jnp.bfloat16)) == len(dots(jnp.float32)) == 5
    assert all("bf16[" in line for line in dots(jnp.bfloat16))
    assert all("f32[" in line for line in dots(jnp.float32))
    one_step = {"context": batch["context"], "future": batch["future"][:, :1]}
    exact = np.asarray(ROLL_OUT(trained[0], one_step, jnp.float32))
    rounded = np.asarray(ROLL_OUT(trained[0], one_step, jnp.bfloat16))
    assert 0 < np.abs(exact - rounded).max() < 0.03


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_experts_side_by_side_score_as_alone(trained, batch, dtype):
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.9 * leaf, 1.1 * leaf]), trained[0])
    together = jax.jit(jax.vmap(lambda p: signal_model.roll_out_score(p, batch, dtype)))(many)
    assert together.shape == (3, 6)
    for index in range(3):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], many)
        alone = SCORE(one, batch, dtype)
        np.testing.assert_allclose(
            together[index], alone, rtol=1e-3 if dtype == jnp.float32 else 0.2
        )


def test_pretraining_lowers_the_loss_and_repeats_its_bits(trained):
    params, losses = trained
    assert losses.shape == (100,)
    assert losses[-10:].mean() < losses[:3].mean() / 5
    again, _ = signal_model.pretrain(jax.random.key(2), "mixed", 100, 64)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), params, again)))
    other, _ = signal_model.pretrain(jax.random.key(3), "mixed", 100, 64)
    assert not (other["layer_0"]["kernel"] == params["layer_0"]["kernel"]).any()


def test_pretraining_is_adam_on_the_next_value_of_fresh_sequences():
    key = jax.random.key(9)
    params, losses = signal_model.pretrain(key, "line", 3, 16)
    theta = signal_model.initialise(jax.random.fold_in(key, 0), "xavier")
    theta = jax.tree.map(np.asarray, theta)
    first = second = jax.tree.map(np.zeros_like, theta)
    seen = []

    @jax.jit
    def loss_fn(theta, points):
        guess = signal_model.next_value(theta, points[:, :10])
        return jnp.mean((guess - points[:, 10]) ** 2)

    for step in range(3):
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        points = families.family_batch("line", step_key, 16, 11)
        seen.append(np.asarray(points))
        loss, gradient = jax.value_and_grad(loss_fn)(theta, points)
        gradient = jax.tree.map(np.asarray, gradient)
        np.testing.assert_allclose(losses[step], loss, rtol=1e-4)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
        theta = jax.tree.map(
            lambda w, m, v, t=step + 1: (
                w - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            theta,
            first,
            second,
        )
    assert len(np.unique(np.concatenate(seen), axis=0)) == 48
    for got, expected in zip(jax.tree.leaves(params), jax.tree.leaves(theta), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("family", ["xavier", "one_line", "sine"])
def test_pretraining_on_an_unknown_family_is_refused(family):
    with pytest.raises(ArgumentError, match="line, sinusoid"):
        signal_model.pretrain(KEY, family, 2, 2)


@pytest.mark.parametrize("law", ["xavier", "kaiming", "orthogonal"])
def test_initialisations_have_their_laws(law):
    params = jax.jit(signal_model.initialise, static_argnums=1)(KEY, law)
    shapes = [(10, 128), (128, 128), (128, 128), (128, 128), (128, 1)]
    for index, (fan_in, fan_out) in enumerate(shapes):
        kernel = np.asarray(params[f"layer_{index}"]["kernel"], np.float64)
        bias = np.asarray(params[f"layer_{index}"]["bias"])
        assert (kernel.shape, bias.shape) == ((fan_in, fan_out), (fan_out,))
        assert not bias.any()
        if law == "orthogonal":
            gram = kernel @ kernel.T if fan_in <= fan_out else kernel.T @ kernel
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
            continue
        variance = 2 / (fan_in + fan_out) if law == "xavier" else 2 / fan_in
        fourth = 9 / 5 if law == "xavier" else 3  # E[w⁴] / E[w²]²: uniform, normal
        spread = math.sqrt((fourth - 1) / kernel.size)
        assert abs((kernel**2).mean() / variance - 1) < 5 * spread
        assert abs(kernel.mean()) < 5 * math.sqrt(variance / kernel.size)
        if law == "xavier":
            assert np.abs(kernel).max() <= math.sqrt(3 * variance) + 1e-6
    kernels = [np.asarray(params[f"layer_{i}"]["kernel"]) for i in (1, 2, 3)]
    assert not (kernels[0] == kernels[1]).any()
    assert not (kernels[1] == kernels[2]).any()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ArgumentError, match="xavier, kaiming, orthogonal"):
        signal_model.initialise(KEY, "he")


def options(**changes):
    settings = {"pretrain": "xavier", "train_items": 40, "test_items": 24}
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
    task = signals.build(options())
    assert (task.name, task.metric, task.combines) == ("signals", "mse", ("mean", "median"))
    for batch, num in ((task.train, 40), (task.test, 24)):
        assert batch["context"].shape == (num, 10)
        assert batch["future"].shape == (num, 60)
    scores = jax.jit(task.score_fn)(task.params, task.test)
    answers = np.asarray(jax.jit(task.predict_fn)(task.params, task.test))
    assert answers.shape == task.targets.shape == (24, 60)
    np.testing.assert_allclose(scores, -((answers - task.targets) ** 2).mean(1), rtol=1e-4)
    assert (task.targets == task.test["future"]).all()
    assert (task.exhibits["test_context"] == task.test["context"]).all()
    assert "51,073 parameters" in task.model
    assert "xavier" in task.model
    assert task.notes == ()
    assert task.provenance == {"initialisation": "xavier", "iterations": 0, "cache": "not used"}


def bits(task):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(task.params)]


def rows(batch):
    return {tuple(row) for row in np.concatenate([batch["context"], batch["future"]], 1).tolist()}


@pytest.mark.parametrize("target", ["sinusoid", "line", "mixed"])
def test_train_and_test_never_meet(target):
    task = signals.build(options(target=target, train_items=300, test_items=300))
    train, test = rows(task.train), rows(task.test)
    assert len(train) == len(test) == 300
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
    small, large = (signals.build(options(train_items=n)) for n in (8, 80))
    assert (small.targets == large.targets).all()


def test_the_seed_changes_data_and_base():
    first, second = (signals.build(options(seed=seed)) for seed in (0, 1))
    assert not rows(first.train) & rows(second.train)
    kernels = [task.params["layer_1"]["kernel"] for task in (first, second)]
    assert not (kernels[0] == kernels[1]).any()


def test_the_prng_of_the_experts_changes_neither_data_nor_base():
    first, second = (signals.build(options(prng=p)) for p in ("threefry2x32", "threefry4x32"))
    assert rows(first.train) == rows(second.train)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("target", ["one_line", "one_sigmoid"])
def test_a_one_target_says_that_training_and_test_coincide(target):
    task = signals.build(options(target=target))
    assert rows(task.train) == rows(task.test)
    assert len(rows(task.train)) == 1
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
    assert rounded.params["layer_0"]["kernel"].dtype == jnp.float32
    first, second = (np.asarray(jax.jit(t.score_fn)(t.params, t.test)) for t in (exact, rounded))
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

    assert state(target="sawtooth") == "hit"
    assert state(train_items=10, num=7, sigma=(0.3,), precision="bfloat16") == "hit"
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
    noise = rng.normal(scale=0.2, size=(kept + randoms + 1, *task.targets.shape))
    answers = task.targets + noise.cumsum(-1)
    return types.SimpleNamespace(
        answers=answers[:kept],
        base_answers=answers[kept],
        random_answers=answers[kept + 1 :],
        targets=task.targets,
        exhibits=task.exhibits,
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
