"""The regret of selecting on few items: by hand, against a slow version, of a known truth."""

import math

import numpy as np
import pytest
from logged_runs import logged_run

from thicket_jax.analysis import regret
from thicket_jax.errors import ArgumentError


def test_regret_by_hand():
    # Two items, each the judge of the other. Expert 0 wins on item 0, expert 1 on item 1.
    items = np.array([[1.0, 0.0], [0.0, 3.0]])
    (row,) = regret.selection_regret(items, [1], [1], draws=4000)
    # Selected on item 0: expert 0, judged 0 where 3 is to be had; on item 1: 0 where 1 is.
    assert row["achieved"] == 0
    assert row["attainable"] == pytest.approx(2, abs=0.08)
    assert row["reference"] == pytest.approx(1, abs=0.04)
    assert row["regret"] == row["attainable"]
    assert row["lost"] == pytest.approx(2, abs=0.01)
    assert row["spread"] == pytest.approx(1, abs=0.01)
    (row,) = regret.selection_regret(items, [1], [2], judged_on="all", draws=3)
    assert (row["achieved"], row["attainable"], row["regret"], row["lost"]) == (1.5, 1.5, 0, 0)
    (row,) = regret.selection_regret(items, [2], [1], draws=3)
    assert row["regret"] == 0
    assert math.isnan(row["lost"])  # of all, no selection gains anything


def test_regret_against_a_slow_version():
    rng = np.random.default_rng(9)
    items = rng.integers(0, 3, (10, 7)).astype(float)
    base = rng.integers(0, 3, 7).astype(float)
    rows = regret.selection_regret(items, [1, 3], [2, 5], base=base, draws=30, seed=2)
    assert [(row["k"], row["items"]) for row in rows] == [(1, 2), (1, 5), (3, 2), (3, 5)]
    orders = np.argsort(np.random.default_rng(2).random((30, 7)), axis=1)
    for row in rows:
        k, m, found = row["k"], row["items"], []
        for order in orders:
            score, judged = items[:, order[:m]].mean(1), items[:, order[m:]].mean(1)
            kept = sorted(range(10), key=lambda i: (-score[i], i))[:k]
            found.append((judged[kept].mean(), np.sort(judged)[-k:].mean(), base[order[m:]].mean()))
        achieved, attainable, level = np.array(found).T
        assert row["achieved"] == pytest.approx(achieved.mean())
        assert row["attainable"] == pytest.approx(attainable.mean())
        assert row["reference"] == pytest.approx(level.mean())
        assert row["regret"] == pytest.approx((attainable - achieved).mean())
        assert row["spread"] == pytest.approx((attainable - achieved).std(ddof=1))
        assert row["lost"] == pytest.approx(row["regret"] / (attainable - level).mean())


def test_regret_of_a_known_truth():
    # True values N(0, 1), noise N(0, 4) an item: on m items the best of n by score is worth
    # sqrt(m/(m + 4)) · E[best of n normals], and the best that is there E[best of n].
    n, best = 100, 2.5075936  # E[max of 100 standard normals]
    achieved, attainable = [], []
    rng = np.random.default_rng(10)
    for i in range(40):
        items = rng.normal(size=(n, 1)) + 2 * rng.normal(size=(n, 400))
        rows = regret.selection_regret(items, [1], [1, 12], draws=30, seed=i)
        achieved.append([row["achieved"] for row in rows])
        attainable.append([row["attainable"] for row in rows])
    expected = np.array([math.sqrt(1 / 5), math.sqrt(12 / 16)]) * best
    assert np.mean(achieved, 0) == pytest.approx(expected, abs=0.12)
    assert np.mean(attainable, 0) == pytest.approx(best, abs=0.12)


def test_judged_on_all_items_flatters():
    items = np.random.default_rng(11).normal(size=(50, 20))  # nothing but noise
    (rest,) = regret.selection_regret(items, [5], [10])
    (everything,) = regret.selection_regret(items, [5], [10], judged_on="all")
    assert abs(rest["lost"] - 1) < 0.2  # selection is worth nothing
    assert everything["lost"] < 0.6


def test_regret_of_equal_scores_of_one_expert_and_of_a_record():
    (row,) = regret.selection_regret(np.ones((5, 4)), [2], [2])
    assert row["regret"] == 0
    assert math.isnan(row["lost"])
    (row,) = regret.selection_regret(np.array([[1.0, 0.0]]), [1], [1])
    assert row["regret"] == 0
    items = np.random.default_rng(12).random((12, 6)).astype(np.float32)
    items[3] = np.nan
    run = logged_run(items, np.ones(12), base_train=np.full(6, 0.5, np.float32))
    rows = regret.of_record(run, [1, 2], [3])
    assert rows == regret.selection_regret(np.delete(items, 3, 0), [1, 2], [3], base=run.base_train)
    assert rows[0]["reference"] == 0.5
    broken = logged_run(items, np.ones(12), base_train=np.full(6, np.nan, np.float32))
    assert regret.of_record(broken, [1], [3]) == regret.selection_regret(
        np.delete(items, 3, 0), [1], [3]
    )


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: regret.selection_regret(np.ones((3, 2)), [1], [1], draws=0), "draws=0"),
        (lambda: regret.selection_regret(np.ones((3, 2)), [4], [1]), "k=4 of 3"),
        (lambda: regret.selection_regret(np.full((3, 2), np.nan), [1], [1]), "k=1 of 0"),
        (lambda: regret.selection_regret(np.ones((3, 2)), [1], [2]), "sizes has 2 of 2"),
        (lambda: regret.selection_regret(np.ones((3, 1)), [1], [1]), "sizes has 1 of 1"),
        (lambda: regret.selection_regret(np.ones((3, 2)), [1], [1], base=np.ones(3)), "base"),
        (
            lambda: regret.selection_regret(np.ones((3, 2)), [1], [1], judged_on="test"),
            "judged_on='test'",
        ),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(ArgumentError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
