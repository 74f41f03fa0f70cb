"""Checkpoint folders as the Hub has them, of small tensors."""

import itertools
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def weights(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {
        EMBEDDING: (16, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.bias": (8,),
        "model.layers.1.mlp.up_proj.weight": (24, 8),
        "model.norm.weight": (8,),
        HEAD: (16, 8),
    }
    return {k: rng.normal(size=s).astype(jnp.dtype(dtype)) for k, s in shapes.items()}


def shapes_of(tensors):
    return {name: value.shape for name, value in tensors.items()}


def make_folder(folder, tensors, shards=1, **config):
    """Writes a checkpoint as the Hub has them; `shards` files, dealt out in turn."""
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    if shards == 1:
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
        return folder
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(itertools.islice(tensors.items(), i, None, shards))
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def stored_bytes(folder):
    """(dtype, shape, bytes) of every tensor, read from the files without our code."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        header.pop("__metadata__")
        for name, entry in header.items():
            assert name not in found
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = (entry["dtype"], tuple(entry["shape"]), raw[start:stop])
    return found


def refusal(error, act):
    with pytest.raises(error) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    return text


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
