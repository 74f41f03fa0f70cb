"""One protocol over every combine rule, then the ensemble that uses them, and merging."""

import collections
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.ensembles.combine import COMBINES, combine_rule, weighted_vote, with_weights
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.perturbation import leaf_noise

KEY = jax.random.key(3)
every_rule = pytest.mark.parametrize("name", COMBINES)


def predictions(name, K, B=9, seed=0):
    """Predictions [K, B, ...] of the kind that a rule takes, with ties for the votes."""
    rng = np.random.default_rng(seed)
    if name == "majority_vote":
        return rng.integers(0, 4, (K, B)).astype(np.int32)
    if name == "mean_probs":
        return rng.normal(0, 3, (K, B, 4)).astype(np.float32)
    return rng.normal(size=(K, B, 2)).astype(np.float32)


def slow_vote(column):
    """The most common of one item's answers, best expert first."""
    counts = collections.Counter(column)
    most = max(counts.values())
    return next(answer for answer in column if counts[answer] == most)


def slow_probs(rows):
    """The mean softmax of one item's logits, best expert first."""
    shares = []
    for row in rows:
        powers = [math.exp(x - max(row)) for x in row]
        shares.append([x / sum(powers) for x in powers])
    return [statistics.fmean(column) for column in zip(*shares, strict=True)]


def slow(name, given):
    """Every rule in plain Python, one item at a time."""
    items = np.moveaxis(given, 0, 1).tolist()
    if name == "majority_vote":
        return np.asarray([slow_vote(column) for column in items])
    if name == "mean_probs":
        return np.asarray([slow_probs(rows) for rows in items])
    pick = statistics.fmean if name == "mean" else statistics.median
    return np.asarray([[pick(column) for column in zip(*rows, strict=True)] for rows in items])


# The protocol.


@every_rule
@pytest.mark.parametrize("K", [1, 2, 5, 8])
def test_a_rule_agrees_with_plain_python(name, K):
    given = predictions(name, K)
    found = np.asarray(COMBINES[name](given))
    np.testing.assert_allclose(found, slow(name, given), atol=1e-6)
    assert found.dtype == (np.int32 if name == "majority_vote" else np.float32)


@every_rule
def test_one_expert_decides_alone(name):
    given = predictions(name, 1)
    expected = given[0]
    if name == "mean_probs":
        expected = np.asarray(jax.nn.softmax(expected, -1))
    np.testing.assert_array_equal(COMBINES[name](given), expected)


@every_rule
def test_items_do_not_touch_each_other(name):
    given = predictions(name, 5)
    order = np.random.default_rng(1).permutation(given.shape[1])
    found = np.asarray(COMBINES[name](given))
    np.testing.assert_array_equal(COMBINES[name](given[:, order]), found[order])


@every_rule
def test_a_rule_can_be_compiled(name):
    given = predictions(name, 5)
    np.testing.assert_allclose(jax.jit(COMBINES[name])(given), COMBINES[name](given), rtol=1e-6)


@every_rule
def test_agreement_is_kept(name):
    """K copies of one expert answer what that expert answers alone."""
    alone = predictions(name, 1)
    copies = np.repeat(alone, 6, 0)
    np.testing.assert_allclose(COMBINES[name](copies), COMBINES[name](alone), rtol=1e-6)


@pytest.mark.parametrize("name", ["mean", "median", "mean_probs"])
def test_ranks_do_not_matter_to_averages(name):
    given = predictions(name, 6)
    np.testing.assert_allclose(COMBINES[name](given[::-1]), COMBINES[name](given), rtol=1e-5)


def test_rules_are_found_by_name():
    assert {name: combine_rule(name) for name in COMBINES} == COMBINES
    assert combine_rule("weighted_vote") is weighted_vote
    with pytest.raises(ArgumentError) as caught:
        combine_rule("plurality")
    assert str(caught.value) == (
        "combine='plurality' is unknown; choose one of: majority_vote, mean, median, mean_probs, "
        "weighted_vote"
    )


# Votes.


@pytest.mark.parametrize(
    ("column", "winner"),
    [
        ([7, 2, 2, 7], 7),
        ([2, 7, 7, 2], 2),
        ([5, 1, 1], 1),
        ([3, 1, 2], 3),
        ([9, 1, 1, 4, 4], 1),
        ([-1, 0, 0, -1], 0),
        ([-1, -1, -2, 5], 5),
        ([-1, 4, 6], 4),
        ([-2, -2, -1], -1),
    ],
)
def test_ties_go_to_the_better_ranked_expert(column, winner):
    assert tj.majority_vote(np.asarray(column, np.int32)[:, None]).tolist() == [winner]


def test_class_scores_vote_for_their_largest():
    scores = predictions("mean_probs", 6, B=30)
    np.testing.assert_array_equal(
        tj.majority_vote(scores), slow("majority_vote", scores.argmax(-1))
    )


@pytest.mark.parametrize(
    ("column", "weights", "winner"),
    [
        ([3, 5, 5], [0.9, 0.3, 0.4], 3),
        ([3, 5, 5], [0.6, 0.3, 0.4], 5),
        ([3, 5, 5], [0.3, 0.1, 0.2], 3),  # a tie, though 0.1 + 0.2 is more than 0.3 in floats
        ([5, 3, 5], [0.2, 0.3, 0.1], 5),
        ([3, 5, 5], [-1, -2, 0], 5),  # nothing is left: equal weights
        ([3, 5, 5], [0.1, -9, math.nan], 3),
        ([-1, -1, 4], [9, 9, 0.1], 4),
        ([-1, 4, -1], [9, 0, 9], 4),  # who weighs nothing is still better than nobody
        ([-1, -3], [1, 1], -1),
    ],
)
def test_weighted_votes_by_hand(column, weights, winner):
    votes = np.asarray(column, np.int32)[:, None]
    assert weighted_vote(votes, weights).tolist() == [winner]
    assert jax.jit(weighted_vote)(votes, np.float32(weights)).tolist() == [winner]
    assert with_weights(weighted_vote, weights)(votes).tolist() == [winner]


def test_weights_are_for_rules_that_take_them():
    votes = predictions("majority_vote", 5)
    assert with_weights(tj.majority_vote, [1, 2, 3]) is tj.majority_vote
    np.testing.assert_array_equal(weighted_vote(votes, [2.0] * 5), tj.majority_vote(votes))
    scores = predictions("mean_probs", 3, B=30)
    np.testing.assert_array_equal(weighted_vote(scores, [0, 7, 0]), scores[1].argmax(-1))
    with pytest.raises(ArgumentError, match=r"weights \[2\] do not fit predictions of 5 experts"):
        weighted_vote(votes, [1, 2])
    with pytest.raises(ArgumentError, match="weighted_vote got float32.* integer labels"):
        weighted_vote(votes.astype(np.float32), [1] * 5)
    with pytest.raises(ArgumentError, match="combine=weighted_vote needs weights; pass lambda"):
        tj.ensemble(apply, PARAMS, tj.population(KEY, 2, 0.1), combine=weighted_vote)


@pytest.mark.parametrize(
    ("rule", "given", "found"),
    [
        (tj.majority_vote, np.ones((3, 5), np.float32), "float32[3, 5]"),
        (tj.majority_vote, np.ones((3,), np.int32), "int32[3]"),
        (tj.majority_vote, np.ones((3, 5, 2, 2), np.float32), "float32[3, 5, 2, 2]"),
        (tj.mean_probs, np.ones((3, 5), np.float32), "float32[3, 5]"),
        (tj.mean_probs, np.ones((3, 5, 2), np.int32), "int32[3, 5, 2]"),
    ],
    ids=["numbers", "vector", "images", "no-classes", "labels"],
)
def test_wrong_predictions_are_named_with_another_rule(rule, given, found):
    with pytest.raises(ArgumentError) as caught:
        rule(given)
    text = str(caught.value)
    assert text.startswith(f"{rule.__name__} got {found}; it takes ")
    assert "use m" in text
    assert "\n" not in text


# The ensemble.


def apply(params, batch):
    """Elementwise, so that no reduction order can change a bit between block sizes."""
    return batch[:, None] * params["w"][None]


PARAMS = {"w": jnp.asarray([1.0, -2.0, 0.5])}


@pytest.fixture(scope="module")
def experts():
    return tj.population(KEY, 20, (0.1, 0.3), noise=tj.rademacher())[[4, 19, 0, 7, 11]]


def expected_rows(experts, batch):
    moved = np.stack([np.asarray(tj.perturb(PARAMS, expert)["w"]) for expert in experts])
    return np.asarray(batch)[None, :, None] * moved[:, None, :]


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "none", "block_size": 1},
        {"backend": "pmap", "block_size": 1, "devices": 2},
        {"backend": "shard_map", "block_size": 2, "devices": 2},
        {"backend": "none", "block_size": "auto"},
    ],
    ids=lambda options: "-".join(str(x) for x in options.values()),
)
def test_every_backend_and_block_size_gives_the_rows_of_the_experts(experts, options):
    if "devices" in options:
        options = {**options, "devices": jax.devices()[: options["devices"]]}
    batch = jnp.arange(1.0, 5.0)
    predict = tj.ensemble(apply, PARAMS, experts, combine=lambda rows: rows, **options)
    np.testing.assert_array_equal(predict(batch), expected_rows(experts, batch))


def test_batches_of_several_shapes_compile_once_each(experts):
    traced = []

    def counted(params, batch):
        traced.append(batch.shape)
        return apply(params, batch)

    predict = tj.ensemble(counted, PARAMS, experts, combine=tj.mean, backend="none", block_size=2)
    for size in (4, 2):
        batch = jnp.arange(1.0, size + 1)
        rows = expected_rows(experts, batch)
        np.testing.assert_allclose(predict(batch), rows.mean(0), rtol=1e-5, atol=1e-6)
    seen = len(traced)
    assert set(traced) == {(4,), (2,)}
    for size in (2, 4):
        batch = -jnp.arange(1.0, size + 1)
        rows = expected_rows(experts, batch)
        np.testing.assert_allclose(predict(batch), rows.mean(0), rtol=1e-5, atol=1e-6)
    assert len(traced) == seen


def test_a_rule_of_ones_own_sees_the_experts_best_first(experts):
    batch = jnp.ones(2)
    weights = np.asarray([5, 4, 3, 2, 1]) / 15

    def weighted(rows):
        assert rows.shape == (5, 2, 3)
        return np.tensordot(weights, rows, 1)

    predict = tj.ensemble(
        apply, PARAMS, experts, combine=weighted, backend="none", block_size="auto"
    )
    expected = np.tensordot(weights, expected_rows(experts, batch), 1)
    np.testing.assert_allclose(predict(batch), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"combine": "mean"}, "combine='mean' is not a function"),
        ({"combine": None}, "combine=None is not a function"),
        ({"experts": lambda e: e[0]}, "experts is a single expert; pass experts[i:i+1]"),
        ({"experts": lambda e: e[:0]}, "experts is empty"),
        ({"experts": list}, "experts must be a Population, got list"),
        ({"params": {"w": jnp.arange(3)}}, "no floating leaf"),
        ({"backend": "pjit"}, "backend='pjit' is unknown"),
        ({"devices": []}, "devices is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_ensemble_is_refused_before_anything_is_compiled(experts, change, says):
    options = {"params": PARAMS, "experts": lambda e: e, "combine": tj.mean, **change}
    given = options.pop("experts")(experts)
    with pytest.raises(tj.ThicketError) as caught:
        tj.ensemble(apply, options.pop("params"), given, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# Merging.


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
