"""A tiny random language model with a tokenizer, as a checkpoint folder, for the tests of text."""

import json
import pathlib

import jax
import numpy as np
from flax import nnx

from thicket_jax.experts.leaves import leaf_rows

SHARED = pathlib.Path(__file__).parents[3] / "shared"
STORIES = SHARED / "models" / "stories260K"

WORDS = [*"0123456789+-*/()=#ABCDE", "the", "a", "is", "in", "of", "to", "and", "answer"]
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": None,
    "eos_token_id": 1,
    "dtype": "float32",
}
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}= {% endif %}"
)
_HEAD = "lm_head.weight"
_SPECIAL = ["<unk>", "</s>"]


def make_checkpoint(
    folder: pathlib.Path, *, chat: bool = False, says: str = "", **changes
) -> pathlib.Path:
    """Writes config.json, model.safetensors and tokenizer files of a tiny Qwen2.

    Its tokens are WORDS. With `says`, they are bytes instead, so that any text has tokens, and the
    model says hardly anything but these characters and the end.
    """
    from safetensors.numpy import save_file

    from thicket_jax.text.config import read_config
    from thicket_jax.text.model import random_params

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _bytes_tokenizer() if says else _words_tokenizer()
    if says:
        changes = {"vocab_size": tokenizer.get_vocab_size(), "tie_word_embeddings": False} | changes
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    config = read_config(folder)
    params = random_params(config, nnx.Rngs(0))
    tensors = {name: np.array(jax.device_get(leaf)) for name, leaf in leaf_rows(params)}
    if says:
        loud = [tokenizer.token_to_id("</s>"), *tokenizer.encode(says).ids]
        tensors[_HEAD][loud] *= 8
        for name in tensors:
            if "self_attn" in name:  # so that what is said depends on the prompt
                tensors[name] *= 10
    save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "eos_token": "</s>",
        **({"chat_template": TEMPLATE} if chat else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _words_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbered = {word: i for i, word in enumerate([*_SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _bytes_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbered = {symbol: i for i, symbol in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(numbered, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
