"""The newer families: their published configs, and what of them is refused."""

import json
import math

import jax
import pytest

from tests.helpers.published_configs import PUBLISHED
from tests.helpers.tensor_folders import EMBEDDING, HEAD, make_folder, weights
from thicket_jax.errors import DataError
from thicket_jax.text.checkpoints import save_checkpoint
from thicket_jax.text.config import Mixture, read_config
from thicket_jax.text.model import abstract
from thicket_jax.text.rope import UNROTATED
from thicket_jax.text.tensor_files import stored_tensors

PHI_4 = PUBLISHED["Phi-4-mini-instruct"]
GEMMA_3 = PUBLISHED["gemma-3-1b-it"]
# What the configs mean; of layers, the first ones.
MEANT = {
    "gemma-2-2b": {
        "windows": (4096, None, 4096, None),
        "embedding_multiplier": 48.0,
        "attention_scale": 1 / 16,
        "attention_softcap": 50.0,
        "logit_softcap": 30.0,
        "norm_offset": 1.0,
        "tied": True,
    },
    "gemma-3-1b-it": {
        "windows": (512,) * 5 + (None, 512),
        "thetas": (1e4,) * 5 + (1e6, 1e4),
        "embedding_multiplier": 1152**0.5,
        "attention_softcap": None,
        "logit_softcap": None,
        "qk_norm": "head",
        "tied": True,
        "eos_ids": (1, 106),
        "dtype": "bfloat16",
    },
    "Phi-3-mini-4k-instruct": {"windows": (2047,) * 3, "kinds": ("default",) * 3, "fused": True},
    "Phi-4-mini-instruct": {"kinds": ("longrope",) * 3, "tied": True, "num_kv_heads": 8},
    "SmolLM3-3B": {
        "kinds": ("default", "default", "default", UNROTATED, "default"),
        "thetas": (5e6,) * 3,
        "windows": (None,) * 36,
        "tied": True,
    },
    "granite-3.1-2b-instruct": {
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_scale": 1 / 64,
        "logits_divisor": 8.0,
    },
    "Qwen3-30B-A3B": {
        "mixture": Mixture(count=128, chosen=8, size=768, normalized=True),
        "windows": (None,) * 48,
        "head_dim": 128,
        "block": "mlp",
    },
    "Mixtral-8x7B-v0.1": {
        "mixture": Mixture(count=8, chosen=2, size=14336, normalized=True),
        "projections": ("w1", "w3", "w2"),
        "block": "block_sparse_moe",
    },
}
PARAMETERS = {
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-1b-it": 999_885_952,
    "Phi-3-mini-4k-instruct": 3_821_079_552,
    "Phi-4-mini-instruct": 3_836_021_760,
    "SmolLM3-3B": 3_075_098_624,
    "granite-3.1-2b-instruct": 2_533_531_648,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Mixtral-8x7B-v0.1": 46_702_792_704,
}


def read(folder, values):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return read_config(folder)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_what_it_means(tmp_path, name):
    config = read(tmp_path, PUBLISHED[name])
    assert hash(config) == hash(read(tmp_path, PUBLISHED[name]))
    of_layers = {
        "windows": config.windows,
        "kinds": tuple(rope.kind for rope in config.ropes),
        "thetas": tuple(rope.theta for rope in config.ropes),
    }
    for field, wanted in MEANT[name].items():
        if field in of_layers:
            assert of_layers[field][: len(wanted)] == wanted, field
        else:
            assert getattr(config, field) == wanted, field


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_transformers_makes_of_it_says_the_same(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    old = read(tmp_path / "old", PUBLISHED[name])
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "old")
    theirs.save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new/config.json").read_text())
    assert "rope_parameters" in written and "rope_theta" not in written
    assert read_config(tmp_path / "new") == old


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_parameters_that_it_is_known_to_have(tmp_path, name):
    config = read(tmp_path, PUBLISHED[name])
    leaves = jax.tree.leaves(abstract(config, config.dtype))
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]


def test_longrope(tmp_path):
    rope = read(tmp_path, PHI_4).ropes[0]
    assert (rope.share, rope.original_max_positions, rope.factor) == (0.75, 4096, 32)
    assert rope.attention_factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    assert (len(rope.short_factors), rope.long_factors[:2]) == (48, (1.0, 2.0))
    older = {**PHI_4["rope_scaling"], "type": "su"}
    assert read(tmp_path, PHI_4 | {"rope_scaling": older}).ropes[0] == rope


def test_scaled_rotary_positions_are_those_of_full_layers(tmp_path):
    scaling = {"rope_type": "linear", "factor": 8.0}
    ropes = read(tmp_path, GEMMA_3 | {"rope_scaling": scaling}).ropes[4:6]
    assert [(rope.kind, rope.theta) for rope in ropes] == [("default", 1e4), ("linear", 1e6)]


def test_what_no_model_reads_changes_nothing(tmp_path):
    coder = {"qkv_bias": False, "shared_expert_intermediate_size": 0, "use_qk_norm": True}
    small = {"_sliding_window_pattern": 6, "use_bidirectional_attention": False}
    for name, fields in (("Qwen3-30B-A3B", coder), ("gemma-3-1b-it", small)):
        assert read(tmp_path, PUBLISHED[name] | fields) == read(tmp_path, PUBLISHED[name])


def test_a_head_that_is_the_embedding_by_default_is_not_exported(tmp_path):
    tensors = weights()
    base = make_folder(tmp_path / "base", tensors | {HEAD: tensors[EMBEDDING]})
    rest = {name: value for name, value in tensors.items() if name != HEAD}
    to = save_checkpoint(base, tmp_path / "new", rest, notes={}, tied=True)
    assert stored_tensors(to).keys() == rest.keys()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "gemma-3-1b-it",
            {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"a": 1}},
            "has a text model as a part (text_config), which is not read; give a checkpoint of",
        ),
        ("gemma-3-1b-it", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma-3-1b-it", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma-3-1b-it", {"hidden_act": "silu"}, "hidden_act is 'silu', and hidden_activation"),
        ("gemma-3-1b-it", {"rope_scaling": {"type": "linear", "factor": 8.0}}, "without rope_type"),
        ("gemma-3-1b-it", {"sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        (
            "gemma-3-1b-it",
            {"rope_parameters": {"sliding_attention": {"rope_theta": 1e6}}},
            "rope_local_base_freq is 10000, and in rope_parameters 1000000.0",
        ),
        ("gemma-2-2b", {"attn_logit_softcapping": -1.0}, "must be a number above 0"),
        ("gemma-2-2b", {"sliding_window_pattern": 3}, "sliding_window_pattern"),
        ("gemma-2-2b", {"query_pre_attn_scalar": "x"}, "query_pre_attn_scalar is 'x'"),
        ("Phi-4-mini-instruct", {"partial_rotary_factor": 0.3}, "short_factor has 48 numbers"),
        ("Phi-4-mini-instruct", {"partial_rotary_factor": 1.5}, "be 1 at most"),
        ("Phi-4-mini-instruct", {"rope_scaling": {"type": "longrope"}}, "short_factor is missing"),
        ("Phi-3-mini-4k-instruct", {"partial_rotary_factor": 0.01}, "odd or zero"),
        ("Phi-4-mini-instruct", {"lm_head_bias": True}, "lm_head_bias"),
        ("SmolLM3-3B", {"no_rope_layers": [1, 0]}, "list of 36"),
        ("SmolLM3-3B", {"no_rope_layers": [2] * 36}, "each 1 or 0"),
        ("granite-3.1-2b-instruct", {"logits_scaling": 0}, "logits_scaling is 0"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [0]}, "layers without experts"),
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ("Qwen3-30B-A3B", {"num_experts_per_tok": 200}, "there are 128 experts"),
        ("Qwen3-30B-A3B", {"num_local_experts": 64}, "differ; remove the wrong one"),
        ("Mixtral-8x7B-v0.1", {"num_local_experts": 0}, "num_local_experts is 0"),
    ],
)
def test_refused(tmp_path, name, changes, said):
    with pytest.raises(DataError) as caught:
        read(tmp_path, PUBLISHED[name] | changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)
