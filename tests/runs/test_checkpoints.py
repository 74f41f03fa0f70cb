"""A pytree comes back from the disk as it was, typed keys among its leaves."""

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.runs import checkpoints


def test_typed_keys_come_back_as_keys(tmp_path):
    tree = {
        "w": jnp.ones((2, 3), jnp.bfloat16),
        "dropout": {"key": jax.random.key(7), "count": np.int32(3)},
        "keys": jax.random.split(jax.random.key(1, impl="threefry4x32"), 3),
    }
    checkpoints.save(tmp_path / "tree", tree)
    found = checkpoints.load(tmp_path / "tree")
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
        assert before.dtype == after.dtype and before.shape == after.shape
    for path in (("w",), ("dropout", "key"), ("dropout", "count"), ("keys",)):
        before, after = tree, found
        for name in path:
            before, after = before[name], after[name]
        if jnp.issubdtype(before.dtype, jax.dtypes.prng_key):
            before, after = jax.random.key_data(before), jax.random.key_data(after)
        np.testing.assert_array_equal(before, after)
