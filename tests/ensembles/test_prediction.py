"""The ensemble: the rows of its experts, best first, however they are mapped."""

import elementwise
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from elementwise import PARAMS, apply, expected_rows

import thicket_jax as tj


@pytest.fixture(scope="module")
def experts():
    return elementwise.experts()


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
