"""What a checkpoint's `config.json` says of its model, every default resolved.

Read strictly: a field either is implemented, or changes no output (see `config_fields`), or is an
error that names it. Defaults are those of transformers 5, family by family.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.config_fields import changes_forward
from thicket_jax.text.families import FAMILIES, Family
from thicket_jax.text.fields import REQUIRED, Fields, read_object
from thicket_jax.text.rope import UNROTATED, Rope, rotary_size
from thicket_jax.text.rope_config import FULL, SLIDING, read_ropes

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Feed-forwards side by side, of which every token takes a few: a mixture of experts."""

    count: int  # E
    chosen: int  # of them, for each token
    size: int  # of each, in place of `intermediate_size`
    normalized: bool  # whether the weights of the chosen ones sum to 1


@dataclasses.dataclass(frozen=True)
class Config:
    """A decoder's shape and rules; hashable, so that it can be static under jit."""

    family: str  # one of FAMILIES
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    ropes: tuple[Rope, ...]  # one for each layer
    windows: tuple[int | None, ...]  # for each layer: positions seen, its own included; None: all
    tied: bool  # whether the output weights are the embedding's
    qkv_bias: bool
    output_bias: bool  # of the attention's output projection
    mlp_bias: bool
    qk_norm: str  # none; head: RMSNorm over each head; full: over the whole projection
    norm_position: str  # pre: norms before the blocks; post: on what they return; both
    activation: str  # one of ACTIVATIONS
    attention_scale: float  # multiplies the scores before the softmax
    dtype: str  # the checkpoint's own, one of DTYPES
    bos_id: int | None
    eos_ids: tuple[int, ...]  # any of them ends a text
    pad_id: int | None
    fused: bool = False  # one matrix of queries, keys and values; one of the gate and the way up
    norm_offset: float = 0.0  # added to a norm's weight
    embedding_multiplier: float = 1.0  # in the parameters' dtype
    residual_multiplier: float = 1.0  # of what a block adds
    attention_softcap: float | None = None  # keeps scores below it, by a hyperbolic tangent
    logit_softcap: float | None = None
    logits_divisor: float = 1.0
    block: str = "mlp"  # name of a layer's feed-forward
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")  # names within it
    mixture: Mixture | None = None  # the feed-forwards, where they are many


# Read for every family.
_COMMON = """
architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers
num_attention_heads num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta
rope_scaling rope_parameters original_max_position_embeddings tie_word_embeddings hidden_act dtype
torch_dtype bos_token_id eos_token_id pad_token_id
"""


def read_config(folder: str | pathlib.Path) -> Config:
    """Reads `config.json` of a checkpoint folder, and `generation_config.json` if it is there.

    Args:
      folder: a checkpoint as transformers writes it.

    Raises:
      DataError: there is no config, it is damaged, of another architecture, or has a field that
        would change the model's output and is not implemented: the line names it.
    """
    path = pathlib.Path(folder).expanduser() / "config.json"
    if not path.is_file():
        raise DataError(
            f"{path} is not there; --model takes the folder of a Hugging Face checkpoint "
            "(config.json, safetensors, tokenizer files)"
        )
    values = read_object(path)
    name = _family(path, values)
    family = FAMILIES[name]
    fields = Fields(path, values, family.defaults)
    _refuse_unknown(fields, name)

    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if fields.get("head_dim") is None and hidden % heads:
        raise fields.error(f"hidden_size {hidden} is not a multiple of {heads} attention heads")
    head_dim = fields.integer("head_dim", hidden // heads)
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.error(f"{heads} attention heads are not a multiple of {kv_heads} key heads")
    eps = fields.get("rms_norm_eps", REQUIRED)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        raise fields.error(f"rms_norm_eps is {eps!r}; it must be a number between 0 and 1")
    rotated = _rotated(fields, family)
    layer_types = _layer_types(fields, family, rotated)
    vocabulary = fields.integer("vocab_size")
    max_positions = fields.integer("max_position_embeddings")
    bias = fields.flag("attention_bias")
    return Config(
        family=name,
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=len(layer_types),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=max_positions,
        norm_eps=float(eps),
        ropes=_ropes(fields, family, layer_types, rotated, max_positions, head_dim),
        windows=_windows(fields, family, layer_types),
        tied=fields.flag("tie_word_embeddings"),
        qkv_bias=family.qkv_bias or bias,
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias"),
        qk_norm=family.qk_norm,
        norm_position=family.norm_position,
        activation=_activation(fields, family),
        attention_scale=_attention_scale(fields, family, head_dim),
        dtype=_dtype(fields),
        fused=family.fused,
        norm_offset=family.norm_offset,
        embedding_multiplier=(
            hidden**0.5 if family.root_scaled else fields.number("embedding_multiplier", 1.0)
        ),
        residual_multiplier=fields.number("residual_multiplier", 1.0),
        attention_softcap=_softcap(fields, "attn_logit_softcapping"),
        logit_softcap=_softcap(fields, "final_logit_softcapping"),
        logits_divisor=fields.number("logits_scaling", 1.0),
        block=family.block,
        projections=family.projections,
        mixture=_mixture(fields, family),
        **_special_tokens(fields, vocabulary),
    )


def _family(path: pathlib.Path, values: Mapping[str, Any]) -> str:
    """The family, by the exact names of architecture and model type."""
    known = {family.architecture: name for name, family in FAMILIES.items()}
    model_type, architectures = values.get("model_type"), values.get("architectures")
    named = architectures or [
        family.architecture for name, family in FAMILIES.items() if name == model_type
    ]
    if not isinstance(named, list) or len(named) != 1 or known.get(str(named[0])) is None:
        found = f"architectures {architectures!r}" if architectures else f"type {model_type!r}"
        if isinstance(values.get("text_config"), dict):
            raise DataError(
                f"{path}: the model's {found} has a text model as a part (text_config), which is "
                "not read; give a checkpoint of a text model alone, such as gemma-3-1b-it"
            )
        raise DataError(
            f"{path}: the model's {found} is not implemented; known are {', '.join(known)}"
        )
    name = known[named[0]]
    if model_type not in (None, name):
        raise DataError(
            f"{path}: model_type {model_type!r} does not belong to {named[0]}, whose type is {name}"
        )
    return name


def _refuse_unknown(fields: Fields, name: str) -> None:
    """A field that is not read, and that might change a forward pass, is an error."""
    read = {*_COMMON.split(), *FAMILIES[name].fields}
    for field, value in fields.values.items():
        if field in read or not changes_forward(field, value):
            continue
        if field == "layer_types" and isinstance(value, list) and all(x == FULL for x in value):
            continue  # all full is what a family without windows has
        shown = json.dumps(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise fields.error(
            f"{field} = {shown} is not implemented for {name} and may change what the model "
            "says; remove it from the file only if you know that it does not"
        )


def _rotated(fields: Fields, family: Family) -> list[bool]:
    """For each layer, whether positions turn its queries and keys."""
    layers = fields.integer("num_hidden_layers")
    if "no_rope_layers" not in family.fields:
        return [True] * layers
    found = fields.get("no_rope_layers")
    if found is None:
        every = fields.integer("no_rope_layer_interval")
        return [(i + 1) % every != 0 for i in range(layers)]
    if not isinstance(found, list) or len(found) < layers or any(x not in (0, 1) for x in found):
        raise fields.error(f"no_rope_layers must be a list of {layers} numbers, each 1 or 0")
    return [x == 1 for x in found[:layers]]


def _layer_types(fields: Fields, family: Family, rotated: list[bool]) -> list[str]:
    """For each layer, whether its attention is full or in a sliding window."""
    layers, has = len(rotated), family.fields
    types = fields.get("layer_types")
    if types is not None and "layer_types" in has:
        if not isinstance(types, list) or len(types) != layers:
            raise fields.error(f"layer_types must be a list of {layers}, one for each layer")
        for found in types:
            if found not in (FULL, SLIDING):
                raise fields.error(f"layer_types has {found!r}; known are {FULL} and {SLIDING}")
        return types
    if "sliding_window" not in has:
        return [FULL] * layers
    if "sliding_window_pattern" in {*has, *family.defaults}:
        every = fields.integer("sliding_window_pattern")
        return [FULL if (i + 1) % every == 0 else SLIDING for i in range(layers)]
    on = fields.get("sliding_window") is not None
    if "use_sliding_window" in has:
        on = fields.flag("use_sliding_window") and on
    first = fields.integer("max_window_layers", least=0) if "max_window_layers" in has else 0
    full = rotated if "no_rope_layers" in has else [False] * layers
    return [SLIDING if on and i >= first and not full[i] else FULL for i in range(layers)]


def _windows(fields: Fields, family: Family, types: list[str]) -> tuple[int | None, ...]:
    if SLIDING not in types:
        return (None,) * len(types)
    if "use_sliding_window" in family.fields and not fields.flag("use_sliding_window"):
        raise fields.error(f"layer_types has {SLIDING}, but use_sliding_window is false")
    window = fields.integer("sliding_window")
    return tuple(window if found == SLIDING else None for found in types)


def _ropes(
    fields: Fields,
    family: Family,
    types: list[str],
    rotated: list[bool],
    max_positions: int,
    head_dim: int,
) -> tuple[Rope, ...]:
    """Each layer's rotary positions, of sizes that fit the head's."""
    ropes = read_ropes(
        fields.path,
        {**family.defaults, **fields.values},
        types,
        max_positions=max_positions,
        default_theta=family.theta,
        by_type=family.ropes_by_type,
        local_theta=family.local_theta,
        partial="partial_rotary_factor" in family.fields,
    )
    for rope in set(ropes):
        size = rotary_size(rope, head_dim)
        if size % 2 or not size:
            part = "" if rope.share == 1 else f" (partial_rotary_factor {rope.share} of {head_dim})"
            raise fields.error(
                f"the head size {size}{part} is odd or zero; rotary positions need an even one"
            )
        for name in ("short_factors", "long_factors"):
            found = len(getattr(rope, name))
            if rope.kind == "longrope" and found != size // 2:
                raise fields.error(
                    f"{name[:-1]} has {found} numbers; half the rotary size is {size // 2}"
                )
    return tuple(
        rope if turns else Rope(UNROTATED, rope.theta, share=rope.share)
        for rope, turns in zip(ropes, rotated, strict=True)
    )


def _mixture(fields: Fields, family: Family) -> Mixture | None:
    """The experts of every layer; that some layers have none is not implemented."""
    if family.expert_size is None:
        return None
    if "decoder_sparse_step" in family.fields:
        step, plain = fields.integer("decoder_sparse_step", 1), fields.get("mlp_only_layers", [])
        if step != 1 or plain != []:
            raise fields.error(
                f"decoder_sparse_step = {step} and mlp_only_layers = {plain!r} make layers without "
                "experts, which is not implemented; known are 1 and []"
            )
    names = [n for n in ("num_experts", "num_local_experts") if fields.values.get(n) is not None]
    counts = {fields.integer(name) for name in names or ["num_experts"]}
    if len(counts) > 1:
        raise fields.error("num_experts and num_local_experts differ; remove the wrong one")
    (count,), chosen = counts, fields.integer("num_experts_per_tok")
    if chosen > count:
        raise fields.error(f"num_experts_per_tok is {chosen}; there are {count} experts")
    size = fields.integer(family.expert_size)
    return Mixture(count, chosen, size, normalized=fields.flag("norm_topk_prob"))


def _activation(fields: Fields, family: Family) -> str:
    """The activation of the gate; where two fields name it, they must agree."""
    known = fields.word("hidden_act", "silu", ACTIVATIONS)
    if "hidden_activation" not in family.fields:
        return known
    found = fields.word("hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS)
    if fields.get("hidden_act", found) != found:
        raise fields.error(
            f"hidden_act is {known!r}, and hidden_activation {found!r}; remove the wrong one"
        )
    return found


def _attention_scale(fields: Fields, family: Family, head_dim: int) -> float:
    if "query_pre_attn_scalar" in family.fields:
        return fields.number("query_pre_attn_scalar") ** -0.5
    if "attention_multiplier" in family.fields:
        return fields.number("attention_multiplier")
    return head_dim**-0.5


def _softcap(fields: Fields, name: str) -> float | None:
    return None if fields.get(name) is None else fields.number(name)


def _dtype(fields: Fields) -> str:
    name = "torch_dtype" if fields.get("dtype") is None else "dtype"
    return fields.word(name, "float32", DTYPES)


def _special_tokens(fields: Fields, vocabulary: int) -> dict[str, Any]:
    """Token ids that `generation_config.json` gives, else `config.json`; of ends, those of both."""
    path = fields.path.with_name("generation_config.json")
    generation = Fields(path, read_object(path) if path.is_file() else {}, {})

    def ids(name: str, source: Fields | None = None) -> tuple[int, ...]:
        if source is None:
            source = fields if generation.get(name) is None else generation
        value = source.get(name, [])
        found = value if isinstance(value, list) else [value]
        for token in found:
            if isinstance(token, bool) or not isinstance(token, int):
                raise source.error(f"{name} is {value!r}; it must be a token id")
            if token >= vocabulary:
                raise source.error(f"{name} {token} is outside the vocabulary of {vocabulary}")
        return tuple(token for token in found if token >= 0)  # -1 is an old way of saying none

    bos, eos, pad = (ids(f"{name}_token_id") for name in ("bos", "eos", "pad"))
    return {
        "bos_id": bos[0] if bos else None,
        "eos_ids": tuple(dict.fromkeys((*eos, *ids("eos_token_id", fields)))),
        "pad_id": pad[0] if pad else None,
    }
