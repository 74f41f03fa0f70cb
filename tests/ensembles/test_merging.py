"""Merging: the weighted sum of the steps, rounded once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import leaf_noise

import thicket_jax as tj
from thicket_jax.errors import ArgumentError

KEY = jax.random.key(3)


def tree():
    rng = np.random.default_rng(2)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 9)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(40,)), jnp.bfloat16),
        "steps": jnp.asarray(3, jnp.int32),
    }


def slow_merge(params, experts, weights, path, scale=1.0):
    """θ + Σ w·sign·σ·scale·ε of one leaf, float64."""
    total = np.asarray(params[path]).astype(np.float64)
    for expert, weight in zip(experts, weights, strict=True):
        epsilon = np.asarray(leaf_noise(expert, path, total.shape), np.float64)
        total += weight * float(expert.signs) * float(expert.sigmas) * scale * epsilon
    return total


@pytest.mark.parametrize(
    ("law", "weights"),
    [
        (tj.gaussian(), None),
        (tj.rademacher(where="w|half", scale="relative"), [0.5, -1, 2, 0, 0.25, 1]),
    ],
    ids=["mean", "weighted"],
)
def test_merging_is_the_weighted_sum_rounded_once(law, weights):
    params = tree()
    chosen = tj.population(KEY, 12, (0.1, 0.3), noise=law, antithetic=True)[[3, 8, 0, 11, 6, 5]]
    merged = tj.merge(params, chosen, weights)
    weights = [1 / 6] * 6 if weights is None else weights
    assert merged["steps"] is params["steps"]
    for path in ("w", "half"):
        wide = np.asarray(params[path]).astype(np.float64)
        scale = 1.0 if law.scale == "absolute" else np.sqrt((wide**2).mean())
        expected = slow_merge(params, chosen, weights, path, scale)
        found = np.asarray(merged[path])
        assert found.dtype == params[path].dtype
        if path == "w":
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
            continue
        # Rounded once: within half a step of bfloat16 of the exact sum, and its float32 error.
        step = np.abs(found.astype(np.float64)) * 2.0**-8
        assert (np.abs(found.astype(np.float64) - expected) <= step + 2e-6).all()


def test_small_noise_is_not_lost_one_expert_at_a_time_in_bfloat16():
    """Each expert's share is below half a bfloat16 step of θ; only their sum is seen."""
    params = {"w": jnp.ones(64, jnp.bfloat16)}
    chosen = tj.population(KEY, 1, 2.0**-10, noise=tj.rademacher())
    same = chosen + chosen + chosen + chosen + chosen + chosen + chosen + chosen
    merged = np.asarray(tj.merge(params, same, [1] * 8)["w"]).astype(np.float32)
    signs = np.asarray(leaf_noise(chosen[0], "w", (64,)))
    np.testing.assert_array_equal(merged, 1 + signs * 2.0**-7)


LAWS = [tj.gaussian(), tj.rademacher(scale="relative"), tj.low_rank(2),
        tj.low_rank(2, rounded=False)]  # fmt: skip


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.family} {law.rounded}")
def test_a_merge_in_float32_is_not_rounded(law, caplog):
    """At steps that are lost in 16 bits; said where they are, and not where they are kept."""
    params = {**tree(), "m": jnp.asarray(np.random.default_rng(1).normal(size=(8, 9)), "bfloat16")}
    chosen = tj.population(KEY, 5, 1e-4, noise=law)
    merged, kept = tj.merge(params, chosen), tj.merge(params, chosen, dtype="float32")
    said = [r.getMessage() for r in caplog.records if "the merged step is below" in r.getMessage()]
    assert len(said) == 1 and "'half' (bfloat16)" in said[0] and "--dtype float32" in said[0]
    assert ("'m' (bfloat16)" in said[0]) == law.rounded
    own = "bfloat16" if law.rounded else "float32"
    assert {name: x.dtype.name for name, x in merged.items()} == {
        "w": "float32", "half": "bfloat16", "steps": "int32", "m": own,
    }  # fmt: skip
    assert kept["half"].dtype == kept["m"].dtype == "float32" and kept["steps"] is params["steps"]
    for name in ("w", "half", "m"):
        wide = np.asarray(params[name]).astype(np.float64)
        scale = 1.0 if law.scale == "absolute" else np.sqrt((wide**2).mean())
        expected = slow_merge(params, chosen, [1 / 5] * 5, name, scale)
        np.testing.assert_allclose(kept[name], expected, rtol=0, atol=5e-7)
        assert (np.asarray(kept[name]) != wide).mean() > 0.9


def test_a_dtype_that_is_none_of_a_merge_is_refused():
    with pytest.raises(ArgumentError, match="dtype='float16' is unknown; choose one of: float32"):
        tj.merge(tree(), tj.population(KEY, 3, 0.1), dtype="float16")


def test_one_expert_merged_is_that_expert_to_rounding():
    params = tree()
    chosen = tj.population(KEY, 4, 0.3)[2:3]
    merged, alone = tj.merge(params, chosen), tj.perturb(params, chosen)
    w, base = np.asarray(alone["w"]), np.asarray(params["w"])
    ulp = np.spacing(np.maximum(np.abs(base), np.abs(w - base)))
    assert (np.abs(np.asarray(merged["w"]) - w) <= 2 * ulp).all()
    np.testing.assert_allclose(
        np.asarray(merged["half"], np.float32), np.asarray(alone["half"], np.float32), rtol=2**-7
    )


def test_an_antithetic_pair_merges_to_theta():
    params = tree()
    merged = tj.merge(params, tj.population(KEY, 2, 0.3, antithetic=True))
    jax.tree.map(np.testing.assert_array_equal, merged, params)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1.0], "weights must be 3 finite numbers"),
        ([1.0, 2.0, float("nan")], "weights must be 3 finite numbers"),
        ([1.0, 2.0, float("inf")], "weights must be 3 finite numbers"),
        ("abc", "weights must be 3 finite numbers"),
        ([[1.0, 2.0, 3.0]], "weights must be 3 finite numbers"),
        ([1, [2], 3], "weights must be 3 finite numbers"),
        (1.0, "weights must be 3 finite numbers"),
    ],
    ids=str,
)
def test_wrong_weights_are_refused(weights, says):
    with pytest.raises(ArgumentError, match=says):
        tj.merge(tree(), tj.population(KEY, 3, 0.1), weights)


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        (lambda e: e[0], "experts is a single expert; pass experts[i:i+1], or use perturb"),
        (lambda e: e[:0], "experts is empty; it must hold at least one expert"),
        (list, "experts must be a Population, got list"),
    ],
    ids=["single", "empty", "list"],
)
def test_wrong_experts_are_refused(cut, says):
    with pytest.raises(ArgumentError) as caught:
        tj.merge(tree(), cut(tj.population(KEY, 3, 0.1)))
    assert str(caught.value) == says
