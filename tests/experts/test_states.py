"""State is no weights: what holds a leaf decides, and `where` can ask for it by its name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import thicket_jax as tj
from thicket_jax.errors import ParameterError, ThicketError
from thicket_jax.experts.leaves import leaf_paths, make_plan

X = jnp.ones((4, 2))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.norm = nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.lora, self.cache = nnx.LoRAParam(jnp.ones(2)), nnx.Cache(jnp.ones(2))

    def __call__(self, x):
        return self.drop(self.norm(self.linear(x)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False)(linen.Dense(3)(x))


def trees():
    model = Net(nnx.Rngs(0))
    variables = LinenNet().init(jax.random.key(0), X)
    adam = optax.chain(optax.clip(1.0), optax.adam(1e-3))
    return {
        "nnx": nnx.state(model),
        "module": model,
        "nnx optimizer": nnx.state(nnx.Optimizer(model, adam, wrt=nnx.Param)),
        "linen": variables,
        "nested": {"encoder": variables, "head": jnp.ones(2)},
        "train state": TrainState.create(apply_fn=None, params=variables["params"], tx=adam),
        "pair": (variables["params"], adam.init(variables["params"])),
    }


def chosen(tree, where=None):
    plan = make_plan(tree, tj.gaussian(where=where))
    assert plan == make_plan(jax.eval_shape(lambda: tree), plan.noise)
    return [path for path, use in zip(plan.paths, plan.chosen, strict=True) if use]


STATE = ("mean", "var", "cache", "count", "key", "step")


@pytest.mark.parametrize("name", trees())
def test_weights_alone_move_and_what_does_not_is_named(name):
    tree = trees()[name]
    moved, floating = set(chosen(tree)) if name != "nnx optimizer" else set(), set()
    for path, leaf in leaf_paths(tree):
        state = path.split(".")[-1] in STATE or "opt_state" in path or path.startswith("1.")
        assert (path in moved) == (not state and name != "nnx optimizer"), path
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            floating.add(path)
    if name == "nnx optimizer":
        with pytest.raises(ParameterError, match="no floating leaf"):
            make_plan(tree, tj.gaussian())
        return
    named = dict(make_plan(tree, tj.gaussian()).skipped)
    assert floating - moved <= named.keys() and not moved & named.keys()


@pytest.mark.parametrize(
    ("name", "where", "found"),
    [
        ("nnx", "mean|var", ["norm.mean", "norm.var"]),
        ("nnx", "cache", ["cache"]),
        ("nnx", "norm", ["norm.bias", "norm.scale"]),  # the layer, not its statistics
        ("nnx", "norm.*", ["norm.bias", "norm.mean", "norm.scale", "norm.var"]),
        ("linen", "batch_stats", ["batch_stats.BatchNorm_0.mean", "batch_stats.BatchNorm_0.var"]),
        ("linen", "kernel", ["params.Dense_0.kernel"]),
        ("train state", "kernel", ["params.Dense_0.kernel"]),  # not its moments
        ("train state", r"mu\..*kernel", ["opt_state.1.0.mu.Dense_0.kernel"]),
        ("nnx optimizer", r"\.nu", None),
    ],
)
def test_where_asks_for_state_by_its_own_name(name, where, found):
    got = chosen(trees()[name], where)
    assert got == found if found else got and all(".nu." in path for path in got)


def test_plain_trees_move_whatever_their_names():
    plain = {"cache": np.ones(2), "mean": np.ones(2), "opt": {"mu": np.ones(2)}, "step": np.ones(1)}
    assert chosen(plain) == ["cache", "mean", "opt.mu", "step"]


def test_a_model_with_statistics_and_dropout_is_scored():
    """The README's own pattern: whatever the sigma, no variance goes below zero."""
    graph, state = nnx.split(Net(nnx.Rngs(0)))

    def predict(params, batch):
        model = nnx.merge(graph, params)
        model.eval()
        return model(batch["x"]).max(-1)

    batch = {"x": X, "key": jax.random.key(1)}
    experts = tj.population(jax.random.key(0), 32, 2.0)
    found = tj.score(predict, state, experts, batch, backend="none", block_size=1)
    assert not found.failed.any()
    assert {path for path, reason in make_plan(state, experts.noise).skipped} == {
        "cache", "drop.rngs.count", "drop.rngs.key", "norm.mean", "norm.var"
    }  # fmt: skip


def test_a_pure_dict_of_a_module_has_no_kinds():
    """Weights and statistics look alike there; the state, or `where`, says which is which."""
    state = nnx.state(Net(nnx.Rngs(0)))
    plain = nnx.to_pure_dict(state)
    assert {"norm.mean", "norm.var"} <= set(chosen(plain)) - set(chosen(state))
    assert set(chosen(plain, r"kernel|bias|\bscale|lora")) == set(chosen(state))


# Typed keys, in batches and among parameters.

BATCH = {"x": X, "key": jax.random.key(7), "keys": jax.random.split(jax.random.key(8), 4)}
WEIGHTS = {"w": jnp.ones((2, 3)), "key": jax.random.key(3)}
SMALL = {"devices": jax.devices()[:1], "block_size": 1}


def noisy(params, batch):
    """A score with noise of the batch's key, of a key an item, and of one among the parameters."""
    shared = jax.random.uniform(batch["key"]) + jax.random.uniform(params["key"])
    return (batch["x"] @ params["w"]).sum(-1) + shared + jax.vmap(jax.random.uniform)(batch["keys"])


def test_typed_keys_go_every_way():
    experts = tj.population(jax.random.key(0), 3, 0.1)
    given, each = (noisy, WEIGHTS, experts, BATCH), jax.jit(noisy)
    wanted = np.stack([each(tj.perturb(WEIGHTS, expert), BATCH) for expert in experts])
    scorer = tj.Scorer(*given, **SMALL)
    ways = {
        "plain": scorer(experts),
        "on": scorer.on(BATCH)(experts),
        "graded": tj.score(*given, grade=lambda outputs: outputs, **SMALL),
        "devices": tj.score(*given, block_size=2, devices=jax.devices()[:2], backend="shard_map"),
        "stream": tj.score(*given, block_size=1, backend="none", stream=True),
    }
    with jax.disable_jit():
        ways["disable_jit"] = tj.score(*given)
    for name, found in ways.items():
        np.testing.assert_allclose(found.items, wanted, rtol=1e-5, err_msg=name)
    rounds = tj.halving(*given, 1, budget=1.0, **SMALL)
    seen = ~np.isnan(rounds.scores.items)
    np.testing.assert_allclose(rounds.scores.items[seen], wanted[seen], rtol=1e-5)
    joined = tj.ensemble(*given[:3], combine=tj.mean, **SMALL)(BATCH)
    np.testing.assert_allclose(joined, wanted.mean(0), rtol=1e-5)


def test_typed_keys_go_through_low_rank_noise():
    experts = tj.population(jax.random.key(0), 2, 0.1, noise=tj.low_rank(1))
    found = tj.score(noisy, WEIGHTS, experts, BATCH, **SMALL)
    wanted = jax.jit(noisy)(tj.perturb(WEIGHTS, experts[1]), BATCH)
    np.testing.assert_allclose(found.items[1], wanted, rtol=1e-5)
    assert tj.matrix_axes(noisy, WEIGHTS, BATCH) == ()


def test_a_search_with_keys_is_resumed_with_these_alone(tmp_path, monkeypatch):
    def search(batch, **options):
        return tj.randopt(
            noisy, WEIGHTS, batch, key=jax.random.key(0), num=3, k=1, sigma=0.1,
            run_dir=tmp_path / "run", **SMALL, **options,
        )  # fmt: skip

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("thicket_jax.search.pipeline.top_k", stop)
        search(BATCH)
    for name, other in (("key", jax.random.key(9)), ("keys", BATCH["keys"][::-1])):
        with pytest.raises(ThicketError, match=r"fingerprints\.train was"):
            search({**BATCH, name: other}, resume=True)
    monkeypatch.setattr("thicket_jax.reports.report.write", lambda *_, **__: None)
    found = search(BATCH, resume=True)
    wanted = tj.score(noisy, WEIGHTS, found.population, BATCH, **SMALL)
    np.testing.assert_array_equal(found.scores.items, wanted.items)


def test_nan_outputs_are_a_failed_expert_whatever_a_grade_makes_of_them():
    experts = tj.population(jax.random.key(0), 16, 1.0)

    def logits(w, batch):
        return jnp.log(w + batch)[:, None] * jnp.ones((1, 3))  # NaN where w + batch is negative

    def grade(outputs):
        return (outputs.argmax(-1) == 0).astype(np.float32)

    given = (logits, jnp.zeros(()), experts, jnp.zeros(8))
    moved = np.array([tj.perturb(jnp.zeros(()), e) for e in experts])
    for scores in (
        tj.score(*given, grade=grade, **SMALL),
        tj.halving(*given, 1, grade=grade, budget=1.0, **SMALL).scores,
    ):
        np.testing.assert_array_equal(scores.failed, moved < 0)
        assert np.isneginf(scores.values[moved < 0]).all() and (scores.values[moved > 0] == 1).all()
