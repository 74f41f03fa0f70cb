"""Which fields of a checkpoint's `config.json` can change its model's forward pass, by their names.

A field that no family reads is judged by the words of its name. Fields of training, of decoding, of
bookkeeping and of how a program runs are harmless, whatever they say. Of the rest, a field is
refused where a word of its name belongs to a part of a forward pass, unless it is off (null, false,
zero, empty) or says what every family does anyway. A name without such a word is harmless.
"""

import re
from typing import Any

# Words of a forward pass, by part; a word also stands for its plural.
_PARTS = {
    "attention": "attn attention qkv qk kv q k v query key value head causal mask masked window "
    "sliding softmax alibi cross bidirectional mla gqa mqa kda cca chunk chunked local global sink "
    "decoder encoder seq2seq context span index indexer relative rel bucket",
    "positions": "rope rotary position positional pos nope yarn ntk longrope mrope theta xpos "
    "interleaved partial period",
    "norms": "norm normalize normalization layernorm rmsnorm groupnorm batchnorm prenorm postnorm "
    "eps epsilon",
    "activations": "act activation gate gated gating gateway glu swiglu geglu gelu silu relu relu2 "
    "sigmoid tanh swish xielu afn",
    "scales": "scale layerscale scaling scaled rescale scalar multiplier mult mup softcap "
    "softcapping cap capping clip clipping clamp limit bound beta alpha gamma factor ratio "
    "rate magnitude temp temperature logit power score scoring",
    "experts": "moe expert router routed routing topk sparse sparsity shared capacity",
    "shapes": "num n d dff size length layer hidden dim embed embedding embd emb ffn mlp ff "
    "feedforward inner intermediate residual resid block width depth rank lowrank lora adapter "
    "channel group kernel conv convolution pattern proj projection skip connection hyper hc altup "
    "laurel expand expansion stride padding dilation patch latent feature stage len loop pass "
    "passes cycle repeat input output standardize",
    "biases": "bias biases",
    "weights": "quant quantization quantize quantized quantizer bits nbits int4 int8 fp4 fp8 awq "
    "gptq bnb gguf compress compression compressed prune pruned pruning tie tied tying untied "
    "share sharing vocab vocabulary token weight",
    "other models": "vision image video audio speech text mamba ssm state memory mem memories "
    "recurrent rnn lstm hybrid mtp nextn delta linear mixer engram ngram time timescale step "
    "codebook hash pooling prompt prefix reuse threshold bottleneck",
}
_WORDS = frozenset(word for words in _PARTS.values() for word in words.split())

# Whatever they say, the logits are the same: bookkeeping, how a program runs, training, special
# tokens of the tokenizer, decoding (thicket_jax takes its options from the command line), lengths.
_HARMLESS = {
    "bookkeeping": "transformers_version _name_or_path name_or_path _commit_hash return_dict "
    "_from_model_config id2label label2id num_labels problem_type finetuning_task tokenizer_class "
    "task_specific_params prefix license library_name tags base_model auto_map "
    "transformers.js_config is_llama_config model_name model_version languages "
    "keys_to_ignore_at_inference",
    "running": "use_cache output_attentions output_hidden_states output_router_logits torchscript "
    "chunk_size_feed_forward use_flash_attn use_flash_attention use_flash_attention_2 "
    "flash_attention flash_attn _flash_attn_2_enabled use_sdpa use_bfloat16 use_bf16 use_fp16 "
    "cache_implementation device_map base_model_tp_plan base_model_pp_plan transformers_weights "
    "tf_legacy_loss is_decoder max_batch_size tensor_parallel tensor_parallel_degree "
    "fused_rms_norm fuse_norm fuse_rope onnx_export init_device",
    "training": "init_method router_jitter_noise input_jitter_noise seq_aux label_smoothing "
    "tie_encoder_decoder",
    "tokens": "pad_token unk_token bos_token eos_token sep_token cls_token mask_token",
    "decoding": "do_sample temperature top_k top_p min_p typical_p top_h epsilon_cutoff eta_cutoff "
    "max_length min_length max_new_tokens min_new_tokens num_beams num_beam_groups "
    "num_return_sequences early_stopping length_penalty repetition_penalty diversity_penalty "
    "encoder_repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
    "force_words_ids suppress_tokens begin_suppress_tokens sequence_bias "
    "exponential_decay_length_penalty remove_invalid_values renormalize_logits output_scores "
    "output_logits return_dict_in_generate guidance_scale stop_strings penalty_alpha token_healing "
    "max_time low_memory watermarking_config prompt_lookup_num_tokens num_assistant_tokens",
    "lengths": "model_max_length max_sequence_length max_seq_length max_seq_len seq_length seq_len "
    "max_context_length n_ctx n_positions max_window_layers",
}
HARMLESS = frozenset(name for names in _HARMLESS.values() for name in names.split())
"""Names of fields that no forward pass in inference reads."""

# So named are training, its losses and its first values, special tokens, and what tools leave.
_HARMLESS_KINDS = re.compile(
    r"(?:^|_)(?:dropout|pdrop|layerdrop|droppath|drop_(?:path|rate)|initializer|init_std|loss"
    r"|losses|learning_rate|optimizer|weight_decay|warmup|train|training|gradient_checkpointing)(?:_|$)"
    r"|_token_ids?$|^_?(?:attn|experts)_implementation|^(?:unsloth|tokenizer|generation|wandb)_"
)

# What every family does anyway; another value is refused.
_AS_EVERY_FAMILY: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("pretraining_tp", "partial_rotary_factor", "rotary_pct"), (1,)),
    **dict.fromkeys(("rotary_percent", "rope_ratio", "logit_scale", "logits_scaling"), (1,)),
    **dict.fromkeys(("residual_multiplier", "embedding_multiplier", "lm_head_multiplier"), (1,)),
    **dict.fromkeys(("full_attn_mod", "interpolate_factor"), (1,)),
    **dict.fromkeys(("is_causal", "causal", "use_causal_mask", "use_rope", "use_rotary"), (True,)),
    **dict.fromkeys(("use_rotary_embeddings", "rotary", "rope", "scale_attn_weights"), (True,)),
    **dict.fromkeys(("use_rms_norm", "use_rmsnorm", "rms_norm", "gated_mlp", "use_glu"), (True,)),
    **dict.fromkeys(("position_embedding_type", "position_embeddings_type"), ("rope", "rotary")),
    **dict.fromkeys(("norm_type", "layer_norm_type", "normalization_type"), ("rms", "rmsnorm")),
}


def changes_forward(field: str, value: Any) -> bool:
    """Whether a field that no family reads may change what its model says.

    Example:
      >>> changes_forward("is_llama_config", True), changes_forward("attn_logit_softcapping", 50.0)
      (False, True)
    """
    if value is None or is_harmless(field):
        return False
    if field in _AS_EVERY_FAMILY:
        known = value.lower() if isinstance(value, str) else value
        return known not in _AS_EVERY_FAMILY[field]
    part = isinstance(value, dict) and field.endswith("config")  # of a model's part
    return bool(value) and (part or not _WORDS.isdisjoint(_words(field)))


def is_harmless(field: str) -> bool:
    """Whether no forward pass in inference reads a field of this name."""
    return field in HARMLESS or _HARMLESS_KINDS.search(field) is not None


def _words(field: str) -> set[str]:
    """The words of a name, in lower case, also without the s of a plural."""
    parts = re.findall("[A-Z]?[a-z0-9]+|[A-Z]+", field)
    words = {part.lower() for part in parts}
    return words | {word.removesuffix("s") for word in words}
