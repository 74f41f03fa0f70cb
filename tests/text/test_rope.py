"""Rotary tables against transformers' own, for every kind and many parameters."""

import doctest
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thicket_jax.text import rope
from thicket_jax.text.rope import UNROTATED, Rope, inverse_frequencies, rotary_table
from thicket_jax.text.rope_config import FULL, read_ropes

MAX_POSITIONS = 131072
LLAMA3 = {"rope_type": "llama3", "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "original_max_position_embeddings": 32768}
PARAMETERS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    LLAMA3 | {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    LLAMA3 | {"factor": 32.0, "low_freq_factor": 0.7, "high_freq_factor": 5.5},
    YARN | {"factor": 4.0},
    YARN | {"factor": 4.0, "truncate": False, "attention_factor": 1.25},
    YARN | {"factor": 4.0, "beta_fast": 64.0, "beta_slow": 3.0},
    YARN | {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707},
    YARN | {"factor": 1.0},
    YARN | {"factor": None},
    YARN | {"factor": 2.0, "original_max_position_embeddings": 5},  # every dimension is slow
]


def read(parameters, theta):
    values = {"rope_parameters": {**parameters, "rope_theta": theta}}
    options = {"max_positions": MAX_POSITIONS, "default_theta": 1.5, "by_type": False}
    return read_ropes(pathlib.Path("config.json"), values, [FULL], **options)[0]


def reference(parameters, theta, head_dim):
    """Inverse frequencies and attention factor as transformers' Llama computes them."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={**parameters, "rope_theta": theta},
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda found: found["rope_type"])
def test_frequencies_are_those_of_transformers(parameters):
    for theta in (1e4, 5e5, 1e6):
        for head_dim in (8, 80, 128):
            theirs, ours = reference(parameters, theta, head_dim), read(parameters, theta)
            found = inverse_frequencies(ours, head_dim)
            assert found.dtype == np.float32 and found.shape == (head_dim // 2,)
            # Three units in the last place: the two power functions differ by one.
            np.testing.assert_allclose(found, theirs.inv_freq.numpy(), rtol=3.6e-7)
            assert ours.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-12)


@pytest.mark.parametrize("parameters", [PARAMETERS[2], PARAMETERS[5]], ids=["llama3", "yarn"])
def test_tables_are_those_of_transformers(parameters):
    torch = pytest.importorskip("torch")
    positions = np.array([[0, 1, 2, 3, 700, 4095], [0, 0, 0, 1, 2, 3]], np.int32)
    theirs = reference(parameters, 5e5, 16)
    cos, sin = theirs(torch.zeros(1), torch.tensor(positions))
    table = jax.jit(rotary_table, static_argnums=(0, 1))
    found = table(read(parameters, 5e5), 16, jnp.asarray(positions))
    # An angle of thousands of radians in float32 is good to about 2⁻²³ of itself.
    tolerance = 1e-6 + 4e-7 * positions[..., None]
    for ours, wanted in zip(found, (cos, sin), strict=True):
        assert ours.shape == (2, 6, 16) and ours.dtype == jnp.float32
        assert (np.abs(np.asarray(ours) - wanted.numpy()) <= tolerance).all()


def test_longrope_has_wavelengths_for_short_and_for_long_texts():
    """By the room that there is; transformers chooses by the longest text so far."""
    torch = pytest.importorskip("torch")
    sizes = {
        "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
        "long_factor": [4.0 + n for n in range(6)],
    }
    parameters = {"rope_type": "longrope", "original_max_position_embeddings": 8, **sizes}
    positions = jnp.arange(9)[None]
    for extra in ({}, {"factor": 4.0}, {"attention_factor": 1.25}):
        theirs, ours = reference(parameters | extra, 1e3, 12), read(parameters | extra, 1e3)
        for slots in (8, 9):
            found = rotary_table(ours, 12, positions, slots)
            wanted = theirs(torch.zeros(1), torch.arange(slots)[None])
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one[:, :slots], other.numpy(), rtol=1e-5, atol=1e-6)


def test_a_part_of_a_head_and_none_of_it():
    part = rotary_table(Rope("default", 1e4, share=0.75), 16, jnp.arange(5))
    whole = rotary_table(Rope("default", 1e4), 12, jnp.arange(5))
    np.testing.assert_array_equal(part, whole)
    cos, sin = rotary_table(Rope(UNROTATED, 1e4), 12, jnp.arange(5))
    assert (cos == 1).all() and (sin == 0).all()


def test_definition():
    """The plain table is cos and sin of position / theta^(2i/d), twice."""
    cos, sin = rotary_table(Rope("default", 10000.0), 6, jnp.arange(4))
    for position in range(4):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            for half in (0, 3):
                assert cos[position, half + i] == pytest.approx(math.cos(angle), abs=1e-6)
                assert sin[position, half + i] == pytest.approx(math.sin(angle), abs=1e-6)


def test_linear_scaling_slows_positions_down():
    slow = rotary_table(Rope("linear", 1e4, factor=2.0), 8, jnp.arange(0, 10, 2))
    plain = rotary_table(Rope("default", 1e4), 8, jnp.arange(5))
    np.testing.assert_allclose(slow, plain, atol=1e-6)


def test_yarn_multiplies_by_its_attention_factor():
    settings = {"original_max_positions": 64, "factor": 2.0}
    once = rotary_table(Rope("yarn", 1e4, **settings), 8, jnp.arange(5))
    twice = rotary_table(Rope("yarn", 1e4, **settings, attention_factor=2.0), 8, jnp.arange(5))
    np.testing.assert_array_equal(np.asarray(twice), 2 * np.asarray(once))


def test_doctest():
    assert doctest.testmod(rope).failed == 0
