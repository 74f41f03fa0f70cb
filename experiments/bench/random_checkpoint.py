"""Checkpoint folders of the right shape with random weights, made on the spot, tensor by tensor."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from thicket_jax.experts.leaves import leaf_names, leaf_rows
from thicket_jax.tasks.language import countdown
from thicket_jax.text.config import Config, read_config
from thicket_jax.text.model import abstract

_QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "bos_token_id": None,
}
SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "1.5B": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7B": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "small": {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
"""Those of Qwen2.5-0.5B, 1.5B and 7B, one that a CPU decodes soon, and one to try programs with."""

_SCALE = 0.02  # standard deviation of weights and biases
_STORED = {"float32": "F32", "bfloat16": "BF16"}


def write_config(folder: pathlib.Path, shape: str, dtype: str) -> Config:
    """Writes config.json of a shape that never ends a text by itself; returns what it says."""
    values = {**_QWEN, **SHAPES[shape], "eos_token_id": None, "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(values, indent=1))
    return read_config(folder)


def write_checkpoint(folder: pathlib.Path, shape: str, dtype: str) -> int:
    """Writes config, weights and a small tokenizer; returns the number of parameters.

    Memory: one tensor on the host, in float32 and in `dtype`.
    """
    config = write_config(folder, shape, dtype)
    shapes = [(name, tuple(leaf.shape)) for name, leaf in leaf_rows(abstract(config, dtype))]
    _write_tensors(folder / "model.safetensors", shapes, dtype)
    _write_tokenizer(folder)
    return sum(int(np.prod(shape)) for _, shape in shapes)


def random_params(config: Config, dtype: str) -> Any:
    """Returns random parameters, made on the device leaf by leaf."""

    def draw(index: int, leaf: Any, stacked: bool) -> jax.Array:
        if len(leaf.shape) == 1 + stacked:
            return jax.numpy.ones(leaf.shape, dtype)
        return _normal(jax.random.key(index), leaf.shape, dtype)

    shapes = abstract(config, dtype)
    leaves, structure = jax.tree.flatten(shapes)
    stacks = [stacked for *_, stacked in leaf_names(shapes)]
    drawn = [draw(i, *entry) for i, entry in enumerate(zip(leaves, stacks, strict=True))]
    return jax.tree.unflatten(structure, drawn)


@jax.jit(static_argnums=(1, 2))
def _normal(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jax.random.normal(key, shape, dtype) * jax.numpy.asarray(_SCALE, dtype)


def _write_tensors(
    path: pathlib.Path, shapes: list[tuple[str, tuple[int, ...]]], dtype: str
) -> None:
    """Writes a safetensors file: the header's length and the header, then one tensor at a time."""
    width = np.dtype(jax.numpy.dtype(dtype)).itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        begin, end = end, end + width * int(np.prod(shape))
        header[name] = {"dtype": _STORED[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            values = draw.standard_normal(shape, np.float32)
            values *= np.float32(_SCALE)
            if "norm" in name:
                values = np.ones(shape, np.float32)
            file.write(np.asarray(values, jax.numpy.dtype(dtype)).tobytes())


def _write_tokenizer(folder: pathlib.Path) -> None:
    """A byte-level BPE of at most 512 tokens, trained on a puzzle's prompt; no end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = countdown.prompt({"numbers": [3, 5, 7], "target": 36})
    tokenizer.train_from_iterator([text] * 2, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
