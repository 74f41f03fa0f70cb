"""The bits of every law, as version 1 of the laws has always drawn them.

An expert is kept as a recipe of a few bytes, so that another bit of its noise is another expert. A
change here needs a new `version` of the law.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj

LAWS = {
    "gaussian": tj.gaussian,
    "rademacher": tj.rademacher,
    "tied_gaussian": tj.tied_gaussian,
    "low_rank 1": lambda **options: tj.low_rank(1, **options),
    "low_rank 3 rademacher": lambda **options: tj.low_rank(3, factors="rademacher", **options),
}
DTYPES = ("float32", "bfloat16", "float16", "float64")
# (law, scale) → of each dtype's leaves the first 12 digits of a SHA-256.
DIGESTS = {
    ("gaussian", "absolute"): "30073d3d96ad af66ede4e42e 25e7e9b8d863 f95bd39ad742",
    ("gaussian", "relative"): "4d5af56f2682 61dd30a9617e d2343372a27d 71e091d248cc",
    ("gaussian", "modular"): "e6addfdeab2a 78d7885159de 2398659c389b 347b46420f4f",
    ("rademacher", "absolute"): "77f4ced944a4 41fec805b323 733941a514dc 087a1c3708b9",
    ("rademacher", "relative"): "a82ff9ae32d0 671353791559 6b0d8c939197 22d66d0e1361",
    ("rademacher", "modular"): "9eb6c9b847e1 43f5852227aa fbe50a5a5e23 d6e6db6a4943",
    ("tied_gaussian", "absolute"): "c279f4bdddbd 6c703e3d9fe8 6d5607140bbf fcae2e18ab42",
    ("tied_gaussian", "relative"): "736b095092de 8744ca4fb06c a5ffac64d72e 1a014354c219",
    ("tied_gaussian", "modular"): "253bd68b91ff 2e2412838ffd 95c49023fc52 37b5c386b772",
    ("low_rank 1", "absolute"): "9db4655a6ad0 cc5fe28b565a 6b4241c15949 c67aeb5b327b",
    ("low_rank 1", "relative"): "1dd278ce8d4a 5b907d61bed4 d19947c997ef 5c75bbf57b6e",
    ("low_rank 1", "modular"): "8c293da0c3a7 d6fe0f400d5a 89205420ceeb 6e541489c2c5",
    ("low_rank 3 rademacher", "absolute"): "fa0c23cd9dca 0d21cfc3b45c 95a30dc3a5a8 1b928aa52275",
    ("low_rank 3 rademacher", "relative"): "d7ae41849cdb 1fa4c3e25bfc 74fb0f5442d9 d4ed9e2234ea",
    ("low_rank 3 rademacher", "modular"): "dce612e454d0 47e0a96bb4a5 9228ad8f43a1 bb993165bec4",
}


def tree():
    rng = np.random.default_rng(0)

    def leaf(dtype, *shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    found = {name: {"kernel": leaf(name, 6, 5), "bias": leaf(name, 5)} for name in DTYPES}
    found["float32"]["twin"] = leaf("float32", 6, 5)
    found["float32"]["stack"] = leaf("float32", 2, 3, 4)
    return found


def moved(name, scale):
    """Two experts, as [dtype → leaves]."""
    axes = (("float32.stack", "brc"), ("float32.twin", "ec"))
    takes_axes = scale == "modular" or name.startswith("low_rank")
    law = LAWS[name](scale=scale, axes=axes if takes_axes else ())
    experts = tj.population(jax.random.key(11), 4, (0.5, 1), noise=law, antithetic=True)
    return [jax.tree.map(np.asarray, tj.perturb(tree(), experts[i])) for i in (0, 3)]


def digest(trees):
    # On a grid of 1/64, so that an ulp of another processor's arithmetic is the same noise.
    values = [np.floor(x.astype(np.float64).ravel() * 64 + 0.1234) for x in jax.tree.leaves(trees)]
    return hashlib.sha256(np.concatenate(values).astype(np.int64).tobytes()).hexdigest()[:12]


@pytest.mark.parametrize("scale", ["absolute", "relative", "modular"])
@pytest.mark.parametrize("name", LAWS)
def test_the_bits_are_those_of_the_release_before(name, scale):
    with jax.enable_x64(True):
        found = moved(name, scale)
    digests = " ".join(digest([one[dtype] for one in found]) for dtype in DTYPES)
    assert digests == DIGESTS[name, scale]
