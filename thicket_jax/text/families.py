"""The families of decoders that are implemented: a record for each, and no code.

What a checkpoint's `config.json` may say is in `fields`; what no field says is a property of the
family, and is here too. Defaults are those of transformers 5.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to an architecture.

    Attributes:
      architecture: its name in `config.json`.
      fields: of `config.json`, that are read besides those that every family has.
      defaults: of fields that are absent, also of those that no file has.
      qkv_bias: biases of queries, keys and values without a field that says so.
      qk_norm, norm_position, fused, norm_offset: as in `Config`.
      theta: base of the rotary wavelengths where the file has none.
      local_theta: that of the sliding layers, where they have one of their own.
      ropes_by_type: whether full and sliding layers have rotary parameters of their own.
      root_scaled: whether embeddings are multiplied by the root of their size.
      block: name of a layer's feed-forward.
      projections: names of its gate, way up and way down.
      expert_size: the field that says how wide an expert of a mixture is; None: no mixture.
    """

    architecture: str
    fields: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    qkv_bias: bool = False
    qk_norm: str = "none"
    norm_position: str = "pre"
    fused: bool = False
    norm_offset: float = 0.0
    theta: float = 10000.0
    local_theta: float | None = None
    ropes_by_type: bool = False
    root_scaled: bool = False
    block: str = "mlp"
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    expert_size: str | None = None


_BIAS = frozenset({"attention_bias"})
_BIASES = _BIAS | {"mlp_bias"}
_TYPED = frozenset({"sliding_window", "layer_types"})
_WINDOWED = _TYPED | {"use_sliding_window", "max_window_layers"}
_WINDOWED_DEFAULTS = {"sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32}
_MIXTURE = frozenset({"num_experts", "num_local_experts", "num_experts_per_tok"})
_GEMMA = _BIAS | _TYPED | {"hidden_activation", "query_pre_attn_scalar", "final_logit_softcapping"}
_GEMMA_DEFAULTS = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", _BIASES),
    "mistral": Family(
        "MistralForCausalLM",
        frozenset({"sliding_window"}),
        {"sliding_window": 4096, "num_key_value_heads": 8},
    ),
    "qwen2": Family("Qwen2ForCausalLM", _WINDOWED, _WINDOWED_DEFAULTS, qkv_bias=True),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _WINDOWED | _BIAS,
        {**_WINDOWED_DEFAULTS, "head_dim": 128},
        qk_norm="head",
    ),
    "olmo2": Family("Olmo2ForCausalLM", _BIAS, qk_norm="full", norm_position="post"),
    "olmo3": Family(
        "Olmo3ForCausalLM",
        _BIAS | _TYPED,
        {"sliding_window": 4096, "sliding_window_pattern": 4},
        qk_norm="full",
        norm_position="post",
        theta=500000.0,
        ropes_by_type=True,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _GEMMA | {"attn_logit_softcapping"},
        {
            **_GEMMA_DEFAULTS,
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        norm_position="both",
        norm_offset=1.0,
        root_scaled=True,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        # The last of them is written by transformers 5, and read by nothing.
        _GEMMA | {"sliding_window_pattern", "rope_local_base_freq", "_sliding_window_pattern"},
        {**_GEMMA_DEFAULTS, "sliding_window_pattern": 6},
        qk_norm="head",
        norm_position="both",
        norm_offset=1.0,
        theta=1000000.0,
        local_theta=10000.0,
        ropes_by_type=True,
        root_scaled=True,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        frozenset({"sliding_window", "partial_rotary_factor"}),
        {"original_max_position_embeddings": 4096},
        fused=True,
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        # The first of them is not read by the model; published files have a 2.
        _BIASES
        | _TYPED
        | {"pretraining_tp", "use_sliding_window"}
        | {"no_rope_layers", "no_rope_layer_interval"},
        {"tie_word_embeddings": True, "num_key_value_heads": 4, "no_rope_layer_interval": 4},
        theta=2000000.0,
    ),
    "granite": Family(
        "GraniteForCausalLM",
        _BIASES
        | {"attention_multiplier", "embedding_multiplier", "residual_multiplier"}
        | {"logits_scaling"},
        {"attention_multiplier": 1.0},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        # The second of them is not read by the model, which always has these norms.
        _BIAS
        | {"use_qk_norm"}
        | _MIXTURE
        | {"use_sliding_window", "sliding_window", "moe_intermediate_size", "norm_topk_prob"}
        | {"decoder_sparse_step", "mlp_only_layers"},
        {
            "sliding_window": 4096,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        qk_norm="head",
        expert_size="moe_intermediate_size",
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        _MIXTURE | {"sliding_window"},
        {
            "num_key_value_heads": 8,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        theta=1000000.0,
        block="block_sparse_moe",
        projections=("w1", "w3", "w2"),
        expert_size="intermediate_size",
    ),
}
