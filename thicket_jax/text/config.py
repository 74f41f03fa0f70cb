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
from thicket_jax.text.rope import Rope
from thicket_jax.text.rope_config import FULL, SLIDING, read_ropes

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")
DTYPES = ("float32", "bfloat16", "float16")


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
    norm_position: str  # pre: norms before the blocks; post: on what the blocks return
    activation: str  # one of ACTIVATIONS
    attention_scale: float  # multiplies the scores before the softmax
    dtype: str  # the checkpoint's own, one of DTYPES
    bos_id: int | None
    eos_ids: tuple[int, ...]  # any of them ends a text
    pad_id: int | None


@dataclasses.dataclass(frozen=True)
class _Family:
    """What is particular to an architecture."""

    architecture: str
    fields: frozenset[str] = frozenset()  # of config.json, read besides _COMMON
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # if a field is absent
    qkv_bias: bool = False  # without a field that says so
    qk_norm: str = "none"
    norm_position: str = "pre"
    theta: float = 10000.0


_WINDOWED = frozenset({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"})
_WINDOWED_DEFAULTS = {"sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32}
_BIAS = frozenset({"attention_bias"})

_FAMILIES = {
    "llama": _Family("LlamaForCausalLM", _BIAS | {"mlp_bias"}),
    "mistral": _Family(
        "MistralForCausalLM",
        frozenset({"sliding_window"}),
        {"sliding_window": 4096, "num_key_value_heads": 8},
    ),
    "qwen2": _Family("Qwen2ForCausalLM", _WINDOWED, _WINDOWED_DEFAULTS, qkv_bias=True),
    "qwen3": _Family(
        "Qwen3ForCausalLM",
        _WINDOWED | _BIAS,
        {**_WINDOWED_DEFAULTS, "head_dim": 128},
        qk_norm="head",
    ),
    "olmo2": _Family("Olmo2ForCausalLM", _BIAS, qk_norm="full", norm_position="post"),
    "olmo3": _Family(
        "Olmo3ForCausalLM",
        _BIAS | {"sliding_window", "layer_types"},
        {"sliding_window": 4096},
        qk_norm="full",
        norm_position="post",
        theta=500000.0,
    ),
}
FAMILIES = tuple(_FAMILIES)

# Read for every family.
_COMMON = """
architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers
num_attention_heads num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta
rope_scaling rope_parameters original_max_position_embeddings tie_word_embeddings hidden_act dtype
torch_dtype bos_token_id eos_token_id pad_token_id
"""

_REQUIRED = object()


class _Fields:
    """A JSON object whose fields are asked for by type; what does not fit names file and field."""

    def __init__(self, path: pathlib.Path, values: Mapping[str, Any], defaults: Mapping[str, Any]):
        self.path, self.values, self.defaults = path, values, defaults

    def error(self, text: str) -> DataError:
        return DataError(f"{self.path}: {text}")

    def get(self, name: str, default: Any = None) -> Any:
        """The value; where it is absent the family's default; where that is null, `default`."""
        value = self.values.get(name, self.defaults.get(name))
        if value is None and default is _REQUIRED:
            raise self.error(f"{name} is missing; is this the config of a language model?")
        return default if value is None else value

    def integer(self, name: str, default: Any = _REQUIRED, least: int = 1) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{name} is {value!r}; it must be a whole number from {least} up")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name, False)
        if not isinstance(value, bool):
            raise self.error(f"{name} is {value!r}; it must be true or false")
        return value

    def word(self, name: str, default: Any, allowed: tuple[str, ...]) -> str:
        value = self.get(name, default)
        if value not in allowed:
            known = ", ".join(allowed)
            raise self.error(f"{name} = {value!r} is not implemented; known are {known}")
        return value


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
    values = _json(path)
    name = _family(path, values)
    family = _FAMILIES[name]
    fields = _Fields(path, values, family.defaults)
    _refuse_unknown(fields, name)

    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if fields.get("head_dim") is None and hidden % heads:
        raise fields.error(f"hidden_size {hidden} is not a multiple of {heads} attention heads")
    head_dim = fields.integer("head_dim", hidden // heads)
    if head_dim % 2:
        raise fields.error(f"the head size {head_dim} is odd; rotary positions need an even one")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.error(f"{heads} attention heads are not a multiple of {kv_heads} key heads")
    eps = fields.get("rms_norm_eps", _REQUIRED)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        raise fields.error(f"rms_norm_eps is {eps!r}; it must be a number between 0 and 1")
    layer_types = _layer_types(fields, name)
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
        ropes=read_ropes(
            path,
            values,
            layer_types,
            max_positions=max_positions,
            default_theta=family.theta,
            by_type=name == "olmo3",
        ),
        windows=_windows(fields, name, layer_types),
        tied=fields.flag("tie_word_embeddings"),
        qkv_bias=family.qkv_bias or bias,
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias"),
        qk_norm=family.qk_norm,
        norm_position=family.norm_position,
        activation=fields.word("hidden_act", "silu", ACTIVATIONS),
        attention_scale=head_dim**-0.5,
        dtype=_dtype(fields),
        **_special_tokens(fields, vocabulary),
    )


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as JSON ({reason}); copy it again") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}, not an object of named fields")
    return values


def _family(path: pathlib.Path, values: Mapping[str, Any]) -> str:
    """The family, by the exact names of architecture and model type."""
    known = {family.architecture: name for name, family in _FAMILIES.items()}
    model_type, architectures = values.get("model_type"), values.get("architectures")
    named = architectures or [
        family.architecture for name, family in _FAMILIES.items() if name == model_type
    ]
    if not isinstance(named, list) or len(named) != 1 or known.get(str(named[0])) is None:
        found = f"architectures {architectures!r}" if architectures else f"type {model_type!r}"
        raise DataError(
            f"{path}: the model's {found} is not implemented; known are {', '.join(known)}"
        )
    name = known[named[0]]
    if model_type not in (None, name):
        raise DataError(
            f"{path}: model_type {model_type!r} does not belong to {named[0]}, whose type is {name}"
        )
    return name


def _refuse_unknown(fields: _Fields, name: str) -> None:
    """A field that is not read, and that might change a forward pass, is an error."""
    read = {*_COMMON.split(), *_FAMILIES[name].fields}
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


def _layer_types(fields: _Fields, name: str) -> list[str]:
    """For each layer, whether its attention is full or in a sliding window."""
    layers, has = fields.integer("num_hidden_layers"), _FAMILIES[name].fields
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
    if name == "olmo3":
        return [FULL if (i + 1) % 4 == 0 else SLIDING for i in range(layers)]
    on, first = fields.get("sliding_window") is not None, 0
    if "use_sliding_window" in has:
        on = on and fields.flag("use_sliding_window")
        first = fields.integer("max_window_layers", least=0)
    return [SLIDING if on and i >= first else FULL for i in range(layers)]


def _windows(fields: _Fields, name: str, types: list[str]) -> tuple[int | None, ...]:
    if SLIDING not in types:
        return (None,) * len(types)
    if "use_sliding_window" in _FAMILIES[name].fields and not fields.flag("use_sliding_window"):
        raise fields.error(f"layer_types has {SLIDING}, but use_sliding_window is false")
    window = fields.integer("sliding_window")
    return tuple(window if found == SLIDING else None for found in types)


def _dtype(fields: _Fields) -> str:
    name = "torch_dtype" if fields.get("dtype") is None else "dtype"
    return fields.word(name, "float32", DTYPES)


def _special_tokens(fields: _Fields, vocabulary: int) -> dict[str, Any]:
    """Token ids that `generation_config.json` gives, else `config.json`; of ends, those of both."""
    path = fields.path.with_name("generation_config.json")
    generation = _Fields(path, _json(path) if path.is_file() else {}, {})

    def ids(name: str, source: _Fields | None = None) -> tuple[int, ...]:
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
