"""State is no weights: what holds a leaf decides, and `where` can ask for it by its name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import thicket_jax as tj
from thicket_jax.errors import ParameterError
from thicket_jax.experts.leaves import leaf_paths, make_plan
from thicket_jax.search.pipeline import Result

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


def test_a_model_with_statistics_and_dropout_is_searched(tmp_path):
    """The README's own pattern: nothing fails, and the run's config names what was left out."""
    graph, state = nnx.split(Net(nnx.Rngs(0)))

    def predict(params, batch):
        model = nnx.merge(graph, params)
        model.eval()
        return model(batch["x"])

    batch = {"x": X, "label": jnp.zeros(4, int), "key": jax.random.key(1)}
    found = tj.randopt(
        lambda p, b: predict(p, b).max(-1), state, batch, key=jax.random.key(0), num=32, k=2,
        sigma=2.0, run_dir=tmp_path / "run", predict_fn=predict, test=batch,
        targets=np.zeros(4, int), metric="accuracy",
    )  # fmt: skip
    assert isinstance(found, Result) and not found.scores.failed.any()
    config = (tmp_path / "run" / "config.json").read_text()
    assert "norm.var: BatchStat, no nnx.Param" in config


def test_nan_outputs_are_a_failed_expert_whatever_a_grade_makes_of_them():
    experts = tj.population(jax.random.key(0), 16, 1.0)

    def logits(w, batch):
        return jnp.log(w + batch)[:, None] * jnp.ones((1, 3))  # NaN where w + batch is negative

    def grade(outputs):
        return (outputs.argmax(-1) == 0).astype(np.float32)

    moved = np.array([tj.perturb(jnp.zeros(()), e) for e in experts])
    for scores in (
        tj.score(logits, jnp.zeros(()), experts, jnp.zeros(8), grade=grade),
        tj.halving(logits, jnp.zeros(()), experts, jnp.zeros(8), 1, grade=grade, budget=1.0).scores,
    ):
        np.testing.assert_array_equal(scores.failed, moved < 0)
        assert np.isneginf(scores.values[moved < 0]).all() and (scores.values[moved > 0] == 1).all()
