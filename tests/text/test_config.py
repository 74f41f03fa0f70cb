"""Reading config.json: families, both spellings, defaults, and what is refused."""

import json
import math
import pathlib
import re

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text import config as text_config
from thicket_jax.text.config import FAMILIES, read_config
from thicket_jax.text.config_fields import HARMLESS, changes_forward, is_harmless
from thicket_jax.text.rope import UNROTATED

SHARED = pathlib.Path(__file__).parents[3] / "shared"
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
# Their config classes in transformers, where they are not called after the architecture.
CONFIGS = {"gemma3_text": "Gemma3TextConfig"}
UNBIASED = ("mistral", "qwen2", "phi3", "mixtral")  # without a field attention_bias
# The configs of published checkpoints, as their folders have them.
LLAMA_31 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}
QWEN_25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
OLMO_3 = {
    "architectures": ["Olmo3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 100257,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8,
    "max_position_embeddings": 65536,
    "model_type": "olmo3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pad_token_id": 100277,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "yarn",
    },
    "rope_theta": 500000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0",
    "use_cache": False,
    "vocab_size": 100278,
}


def small(family="llama", **changes):
    """A complete config of four layers; a change of None is a null, one of ... takes it out."""
    values = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


def config_class(transformers, family):
    """The family's class in transformers."""
    name = ARCHITECTURES[family].replace("ForCausalLM", "Config")
    return getattr(transformers, CONFIGS.get(family, name))


@pytest.fixture
def read(tmp_path):
    """Writes files and reads the config."""

    def run(values, generation=None):
        text = values if isinstance(values, str) else json.dumps(values)
        (tmp_path / "config.json").write_text(text)
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return read_config(tmp_path)

    return run


def test_published_llama(read):
    config = read(LLAMA_31)
    assert (config.family, config.head_dim, config.num_kv_heads) == ("llama", 128, 8)
    assert config.attention_scale == 128**-0.5
    rope = config.ropes[0]
    assert (rope.kind, rope.theta, rope.factor) == ("llama3", 500000.0, 8.0)
    assert (rope.original_max_positions, rope.high_freq_factor) == (8192, 4.0)
    assert config.windows == (None,) * 32
    assert config.eos_ids == (128001, 128008, 128009)
    assert (config.bos_id, config.pad_id, config.dtype) == (128000, None, "bfloat16")
    assert not (config.tied or config.qkv_bias or config.output_bias or config.mlp_bias)
    assert config == read(LLAMA_31) and len({config, read(LLAMA_31)}) == 1


def test_published_qwen(read):
    config = read(QWEN_25)
    assert config.tied and config.qkv_bias and not config.output_bias
    assert config.windows == (None,) * 24
    assert (config.head_dim, config.qk_norm, config.norm_position) == (64, "none", "pre")


def test_published_olmo(read):
    config = read(OLMO_3)
    assert config.windows == ((4096,) * 3 + (None,)) * 8
    assert [rope.kind for rope in config.ropes[:4]] == ["default"] * 3 + ["yarn"]
    assert config.ropes[3].attention_factor == pytest.approx(0.1 * math.log(8) + 1)
    assert (config.qk_norm, config.norm_position, config.pad_id) == ("full", "post", 100277)


def test_stories260k():
    if not (SHARED / "models/stories260K").is_dir():
        pytest.skip("the model stories260K is not here")
    config = read_config(SHARED / "models/stories260K")
    assert (config.num_layers, config.num_heads, config.head_dim) == (5, 8, 8)
    assert config.tied and config.eos_ids == (2,) and config.pad_id == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_of_the_families(read, family):
    config = read(small(family, **({} if family in UNBIASED else {"attention_bias": True})))
    assert config.family == family
    assert config.qkv_bias == (family == "qwen2" or family not in UNBIASED)
    assert config.output_bias == (family not in UNBIASED)
    norms = {"qwen3": "head", "olmo2": "full", "olmo3": "full", "gemma3_text": "head"}
    norms |= {"qwen3_moe": "head"}
    assert config.qk_norm == norms.get(family, "none")
    positions = {"olmo2": "post", "olmo3": "post", "gemma2": "both", "gemma3_text": "both"}
    assert config.norm_position == positions.get(family, "pre")
    assert config.norm_offset == family.startswith("gemma")
    sizes = {"qwen3": 128, "gemma2": 256, "gemma3_text": 256}
    assert config.head_dim == sizes.get(family, 8)
    assert config.ropes[0].theta == {"olmo3": 5e5, "smollm3": 2e6, "mixtral": 1e6}.get(family, 1e4)


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("llama", {}, (None,) * 4),
        ("mistral", {}, (4096,) * 4),  # what transformers takes where the file does not say
        ("mistral", {"sliding_window": None}, (None,) * 4),
        ("mistral", {"sliding_window": 7}, (7,) * 4),
        ("qwen2", {"sliding_window": 7}, (None,) * 4),
        ("qwen2", {"sliding_window": 7, "use_sliding_window": True}, (None,) * 4),
        (
            "qwen2",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1},
            (None, 7, 7, 7),
        ),
        (
            "qwen3",
            {
                "sliding_window": 7,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention"] + ["full_attention"] * 3,
            },
            (7, None, None, None),
        ),
        ("olmo2", {}, (None,) * 4),
        ("olmo3", {"sliding_window": 7}, (7, 7, 7, None)),
        ("olmo3", {"layer_types": ["full_attention"] * 4, "sliding_window": None}, (None,) * 4),
    ],
)
def test_windows(read, family, changes, windows):
    assert read(small(family, **changes)).windows == windows


def test_two_spellings_of_rotary_positions(read):
    yarn = {"factor": 4.0, "original_max_position_embeddings": 16}
    old = read(small(rope_theta=5e5, rope_scaling={"type": "yarn", **yarn}))
    new = read(small(rope_parameters={"rope_type": "yarn", "rope_theta": 5e5, **yarn}))
    both = {"rope_type": "yarn", "type": "yarn", "rope_theta": 5e5, **yarn}
    assert old == new == read(small(rope_theta=5e5, rope_scaling=yarn | both, rope_parameters=both))
    assert old.ropes[0].attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    assert read(small(rope_theta=5e5, rope_scaling=None)).ropes[0].theta == 5e5
    null = read(small(rope_scaling={"type": "yarn", **yarn, "factor": None}))
    assert null.ropes[0].factor == 64 / 16


def test_original_positions(read):
    scaling = {"rope_type": "yarn", "factor": 2.0}
    assert read(small(rope_scaling=scaling)).ropes[0].original_max_positions == 64
    config = read(small(rope_scaling=scaling, original_max_position_embeddings=32))
    assert config.ropes[0].original_max_positions == 32


def test_rotary_positions_by_layer_type(read):
    parameters = {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = read(small("olmo3", rope_parameters=parameters))
    assert [(rope.kind, rope.theta) for rope in config.ropes] == [("default", 1e4)] * 3 + [
        ("linear", 1e6)
    ]
    config = read(small("olmo3", rope_parameters={"sliding_attention": None}))
    assert {(rope.kind, rope.theta) for rope in config.ropes} == {("default", 5e5)}


def test_token_ids_come_from_the_generation_config(read):
    values = small(eos_token_id=2, bos_token_id=1, pad_token_id=-1)
    config = read(values)
    assert (config.bos_id, config.eos_ids, config.pad_id) == (1, (2,), None)
    config = read(values, {"eos_token_id": [3, 4], "pad_token_id": 0, "temperature": 0.6})
    assert (config.bos_id, config.eos_ids, config.pad_id) == (1, (3, 4, 2), 0)
    assert read(small(), {}).eos_ids == ()


def test_dtype(read):
    assert read(small()).dtype == "float32"
    assert read(small(torch_dtype="bfloat16")).dtype == "bfloat16"
    assert read(small(torch_dtype="bfloat16", dtype="float16")).dtype == "float16"


def test_fields_that_are_off_or_harmless(read):
    off = {"quantization_config": None, "attn_logit_softcapping": None, "clip_qkv": None}
    off |= {"use_mrope": False, "num_local_experts": 0, "auto_map": {}, "pretraining_tp": 1}
    off |= {"partial_rotary_factor": 1.0, "attention_dropout": 0.0, "initializer_range": 0.5}
    assert read(small(**off)) == read(small())


# What published configs have besides the sizes and the fields above.
SEEN = {
    "SmolLM2": ("llama", {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1}),
    "SmolLM2-Instruct": (
        "llama",
        {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}},
    ),
    "Llama-1": ("llama", {"max_sequence_length": 2048, "pad_token_id": -1}),
    "Llama-3.2": ("llama", {"head_dim": 8, "attention_dropout": 0.0, "_name_or_path": "x"}),
    "Mistral-Nemo": ("mistral", {"head_dim": 8, "sliding_window": None, "use_cache": True}),
    "Qwen2.5": ("qwen2", {"use_mrope": False, "max_window_layers": 28, "sliding_window": 32768}),
    "Qwen3": ("qwen3", {"head_dim": 8, "max_window_layers": 36, "attention_bias": False}),
    "OLMo-2": ("olmo2", {"attention_bias": False, "use_cache": False, "pad_token_id": 1}),
    "unsloth": ("llama", {"unsloth_fixed": True, "unsloth_version": "2024.9"}),
    "old": ("llama", {"is_decoder": False, "tie_encoder_decoder": False, "bad_words_ids": [[1]]}),
    "all full": ("qwen2", {"layer_types": ["full_attention"] * 4, "use_sliding_window": False}),
    "a chat": ("mistral", {"sep_token_id": 5, "prefix": "x", "task_specific_params": {"a": 1}}),
    "code": ("olmo2", {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}),
    "training": ("llama", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "router_aux_loss_coef": 0.1}),
}


@pytest.mark.parametrize(("family", "fields"), SEEN.values(), ids=SEEN)
def test_published_fields_that_change_nothing(read, family, fields):
    plain = {name: fields[name] for name in ("head_dim", "sliding_window") if name in fields}
    found = read(small(family, **fields))
    for name in ("pad_token_id",):
        plain |= {name: fields[name]} if name in fields else {}
    assert found == read(small(family, **plain))


@pytest.mark.parametrize("odd", [True, 7, -0.5, "odd", ["x"], {"a": {"b": 1}}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_no_forward_pass_reads_is_harmless_to_every_family(read, family, odd):
    kinds = ("hidden_dropout", "hidden_dropout_prob", "classifier_dropout", "x_loss_weight")
    kinds += ("initializer_range", "_attn_implementation_autoset", "image_token_id", "unsloth_x")
    names = {*HARMLESS, *kinds, "is_my_version", "flavour", "recipe", "merged_from"}
    names -= {"max_window_layers"} if family.startswith("qwen") else set()
    assert read(small(family, **dict.fromkeys(names, odd))) == read(small(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_that_a_forward_pass_reads_is_implemented_or_refused(read, family):
    """Every field of the family's config in transformers, and of its code, with another value."""
    transformers = pytest.importorskip("transformers")
    kind = family.removesuffix("_text")
    folder = pathlib.Path(transformers.__file__).parent / "models" / kind
    code = (folder / f"modeling_{kind}.py").read_text()
    names = {*re.findall(r"config\.([a-z]\w+)", code), *re.findall(r'config, "(\w+)"', code)}
    names |= set(config_class(transformers, family)().to_dict())
    assert len(names) > 20
    plain = read(small(family))
    for name in sorted(names):
        for odd in (3, 0.5, "odd", ["sliding_attention"] * 3, {"rope_type": "odd"}):
            try:
                same = read(small(family, **{name: odd})) == plain
            except DataError:
                continue
            unread = is_harmless(name) or name == "pretraining_tp" or odd == small(family).get(name)
            # Windows are off in some families where use_sliding_window does not say otherwise, and
            # the original positions are part of a scaling.
            off = name == "sliding_window" and family in ("qwen2", "qwen3", "qwen3_moe", "smollm3")
            off |= name in ("original_max_position_embeddings", "_sliding_window_pattern")
            assert not same or unread or off, (name, odd)


def test_no_field_that_some_decoder_of_transformers_reads_is_taken_for_harmless():
    transformers = pytest.importorskip("transformers")
    from transformers.models.auto import modeling_auto

    decoders = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    names = set()
    for path in (pathlib.Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        code = path.read_text()
        if not decoders.isdisjoint(re.findall(r"^class (\w+)\(", code, re.MULTILINE)):
            names.update(re.findall(r"config\.([a-z]\w+)\b(?!\()", code))
    passed = {name for name in names if not is_harmless(name) and not changes_forward(name, 7.5)}
    assert len(names) > 400 and len(passed) < 0.05 * len(names), sorted(passed)


@pytest.mark.parametrize("family", ["llama", "mistral", "olmo2"])
def test_layers_that_are_all_full_are_harmless_without_windows(read, family):
    plain = {"sliding_window": None} if family == "mistral" else {}
    layers = {"layer_types": ["full_attention"] * 4}
    assert read(small(family, **plain, **layers)) == read(small(family, **plain))


@pytest.mark.parametrize("stray", [{"attn_factor": 0.5}, {"finetuned": True}], ids=str)
def test_a_stray_entry_of_rope_scaling_changes_nothing(read, stray):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert read(small("qwen3", rope_scaling=yarn | stray)) == read(
        small("qwen3", rope_scaling=yarn)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_is_read(tmp_path, family):
    transformers = pytest.importorskip("transformers")
    theirs = config_class(transformers, family)(architectures=[ARCHITECTURES[family]])
    theirs.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert (config.family, config.vocab_size) == (family, theirs.vocab_size)
    assert config.num_layers == theirs.num_hidden_layers


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quant_method"),
        ("llama", {"residual_multiplier": 0.22}, "residual_multiplier = 0.22"),
        ("llama", {"logits_scaling": 8.0}, "logits_scaling"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("llama", {"num_local_experts": 8}, "num_local_experts"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"partial_rotary_factor": 0}, "partial_rotary_factor"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
        ("llama", {"sliding_window": 128}, "sliding_window"),
        ("llama", {"quantization": {"group_size": 64, "bits": 4}}, "quantization"),
        ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 64}}, "dual_chunk_attention"),
        ("llama", {"layer_types": [["full_attention"]]}, "layer_types"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved"),
        ("llama", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("llama", {"is_encoder_decoder": True}, "is_encoder_decoder"),
        ("llama", {"is_causal": False}, "is_causal = false"),
        ("llama", {"use_rope": False}, "use_rope = false"),
        ("llama", {"position_embedding_type": "alibi"}, "alibi"),
        ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier"),
        ("llama", {"noRopeLayers": [1]}, "noRopeLayers"),
        ("llama", {"tower_config": {"a": 1}}, "tower_config"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv = 8.0"),
        ("mistral", {"attention_bias": True}, "attention_bias"),
        ("mistral", {"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ("qwen3", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu'"),
        ("llama", {"dtype": "float8_e4m3fn"}, "dtype"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1]}}, "'longrope'"),
        ("llama", {"rope_scaling": {"type": "linear", "rope_type": "yarn"}}, "remove type"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor is '2'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 9}}, "beta_fast"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ("llama", {"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ("llama", {"rope_theta": "big"}, "rope_theta is 'big'"),
        ("llama", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "remove the wrong"),
        (
            "llama",
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            },
            "differ",
        ),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "full_attention"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("olmo3", {"rope_parameters": {"rope_type": "default"}}, "without full_attention"),
        ("olmo3", {"rope_parameters": {"full_attention": "yarn"}}, "'yarn'"),
        ("olmo3", {"rope_theta": 10000.0}, "rope_theta other than 500000"),
        ("olmo3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "without rope_type"),
        ("olmo3", {"sliding_window": None}, "sliding_window is missing"),
        ("olmo3", {"layer_types": ["full_attention"]}, "list of 4"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "use_sliding_window is false"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("llama", {"hidden_size": ...}, "hidden_size is missing"),
        ("llama", {"rms_norm_eps": ...}, "rms_norm_eps is missing"),
        ("llama", {"vocab_size": "many"}, "vocab_size is 'many'"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers is True"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ("llama", {"hidden_size": 34}, "34 is not a multiple"),
        ("llama", {"head_dim": 7}, "odd"),
        ("llama", {"num_key_value_heads": 3}, "not a multiple of 3"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ("llama", {"eos_token_id": 97}, "outside the vocabulary"),
        ("llama", {"eos_token_id": "</s>"}, "must be a token id"),
        ("llama", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "GPT2LMHeadModel"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForCausalLM"),
        ("llama", {"architectures": None, "model_type": "gemma"}, "'gemma'"),
        ("llama", {"architectures": ..., "model_type": ...}, "None"),
        ("llama", {"model_type": "mistral"}, "does not belong"),
    ],
)
def test_refused(read, tmp_path, family, changes, said):
    with pytest.raises(DataError) as caught:
        read(small(family, **changes))
    text = str(caught.value)
    assert said in text and "\n" not in text
    assert str(tmp_path / "config.json") in text


def test_files_that_are_no_config(read, tmp_path):
    with pytest.raises(DataError, match=r"nowhere/config\.json is not there; --model takes"):
        read_config(tmp_path / "nowhere")
    for text, said in [("{", "JSON"), ("[1]", "list"), ("\x00", "JSON"), ("", "JSON")]:
        with pytest.raises(DataError, match=said) as caught:
            read(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="generation_config"):
        read(small(), {"eos_token_id": "end"})


def test_an_architecture_may_be_left_out(read):
    assert read(small("qwen3", architectures=...)).family == "qwen3"
    assert read(small("qwen3", model_type=...)).family == "qwen3"


MULTIPLIERS = {
    "residual_multiplier": "residual_multiplier",
    "logits_divisor": "logits_scaling",
    "logit_softcap": "final_logit_softcapping",
    "attention_softcap": "attn_logit_softcapping",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_transformers(read, family):
    transformers = pytest.importorskip("transformers")
    changes = {"num_key_value_heads": ..., "num_hidden_layers": 32, "num_attention_heads": 32}
    scaling = None if family == "phi3" else {"rope_type": "yarn", "factor": 2.0}
    changes |= {"hidden_size": 256, "rope_scaling": scaling}
    config = read(small(family, **changes))
    theirs = config_class(transformers, family).from_dict(small(family, **changes))
    assert config.num_kv_heads == theirs.num_key_value_heads
    assert config.head_dim == (getattr(theirs, "head_dim", None) or 256 // 32)
    field = "hidden_activation" if family.startswith("gemma") else "hidden_act"
    assert config.activation == getattr(theirs, field)
    for ours, field in MULTIPLIERS.items():
        assert getattr(config, ours) == getattr(theirs, field, getattr(text_config.Config, ours))
    scale = getattr(theirs, "query_pre_attn_scalar", config.head_dim) ** -0.5
    assert config.attention_scale == getattr(theirs, "attention_multiplier", scale)
    assert config.tied == theirs.tie_word_embeddings
    for bias in ("attention_bias", "mlp_bias"):
        assert not getattr(theirs, bias, False)
    parameters = theirs.rope_parameters
    types = (
        getattr(theirs, "layer_types", None)
        or ["sliding_attention" if getattr(theirs, "sliding_window", None) else "full_attention"]
        * 32
    )
    window = getattr(theirs, "sliding_window", None)
    rotated = getattr(theirs, "no_rope_layers", [1] * 32)
    assert [rope.kind != UNROTATED for rope in config.ropes] == [x == 1 for x in rotated]
    for rope, found, kind in zip(config.ropes, config.windows, types, strict=True):
        wanted = parameters.get(kind, parameters)
        assert rope.theta == wanted["rope_theta"]
        if rope.kind != UNROTATED:
            assert rope.kind == wanted["rope_type"]
            assert rope.factor == wanted.get("factor", 1.0)
        assert found == (window if kind == "sliding_attention" else None)


def test_every_activation_is_the_model_s():
    layers = pytest.importorskip("thicket_jax.text.layers")
    assert set(text_config.ACTIVATIONS) == set(layers.ACTIVATIONS)
