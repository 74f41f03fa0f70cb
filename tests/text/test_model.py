"""The decoder against transformers' PyTorch models, and cached decoding against the full pass."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thicket_jax as tj
from thicket_jax.experts.leaves import leaf_rows, make_plan
from thicket_jax.experts.perturbation import apply_noise
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping.implicit import evaluate
from thicket_jax.text import layers, pretrained
from thicket_jax.text.cache import cache_bytes, empty_cache
from thicket_jax.text.config import read_config
from thicket_jax.text.model import forward
from thicket_jax.text.tensor_files import stored_tensors

SHARED = pathlib.Path(__file__).parents[3] / "shared"
ROWS, TOKENS, PROMPT, SLOTS = 3, 14, 9, 16
PADDING = (0, 3, 6)  # on the left of each row

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 1e3, "factor": 2.5}
YARN = {"rope_type": "yarn", "rope_theta": 1e3, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 8}  # the sequences are longer
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e3, "partial_rotary_factor": 0.75}
LONGROPE |= {"short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]}
LONGROPE |= {"long_factor": [1.0, 2.0, 4.0, 8.0, 9.0, 9.5]}
LONGROPE |= {"original_max_position_embeddings": 8}
MIXTURE = {"sliding_window": 5, "rope_parameters": PLAIN}
BY_TYPE = {"full_attention": YARN, "sliding_attention": PLAIN | {"rope_theta": 5e5}}

# family: what its checkpoint is like, and changes of the config that must change the logits, so
# that a comparison of logits would notice their absence.
CASES = {
    "llama": (
        {"attention_bias": True, "mlp_bias": True, "head_dim": 10, "rope_parameters": LLAMA3},
        [{"rope_parameters": PLAIN | {"rope_theta": 500.0}}],
    ),
    "mistral": (
        {"sliding_window": 5, "hidden_size": 40, "head_dim": 12, "rope_parameters": LINEAR},
        [{"sliding_window": None}, {"rope_parameters": PLAIN | {"rope_theta": 1e3}}],
    ),
    "qwen2": (
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
            "rope_parameters": YARN,
        },
        [{"max_window_layers": 2}, {"rope_parameters": PLAIN | {"rope_theta": 1e3}}],
    ),
    "qwen3": (
        {
            "head_dim": 16,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "hidden_act": "gelu_pytorch_tanh",
            "rope_parameters": PLAIN,
        },
        [{"hidden_act": "silu"}],
    ),
    "olmo2": ({"hidden_act": "gelu", "rope_parameters": PLAIN}, [{"hidden_act": "silu"}]),
    "olmo3": (
        {
            "num_hidden_layers": 4,
            "sliding_window": 5,
            "attention_bias": True,
            "rope_parameters": BY_TYPE,
        },
        [
            {"sliding_window": 64},
            {"rope_parameters": BY_TYPE | {"full_attention": PLAIN}},
            {"rope_parameters": BY_TYPE | {"sliding_attention": YARN}},
        ],
    ),
    "gemma2": (
        {
            "num_hidden_layers": 3,
            "sliding_window": 5,
            "head_dim": 12,
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 20.0,
            "rope_parameters": PLAIN,
        },
        [
            {"sliding_window": 64},
            {"query_pre_attn_scalar": 12},
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
        ],
    ),
    "gemma3_text": (
        {
            "num_hidden_layers": 3,
            "sliding_window": 5,
            "head_dim": 12,
            "query_pre_attn_scalar": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": PLAIN | {"rope_theta": 100.0},
            },
        },
        [
            {"layer_types": ["sliding_attention"] * 3},
            {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": PLAIN}},
            {"query_pre_attn_scalar": 12},
        ],
    ),
    "phi3": (
        {
            "hidden_size": 64,
            "sliding_window": 5,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 8,
            "rope_parameters": LONGROPE,
        },
        [
            {"sliding_window": None},
            {"rope_parameters": LONGROPE | {"long_factor": LONGROPE["short_factor"]}},
            {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.75}},
        ],
    ),
    "smollm3": (
        {
            "num_hidden_layers": 3,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 5,
            "tie_word_embeddings": True,
            "rope_parameters": PLAIN,
        },
        [{"no_rope_layers": [1, 1, 1]}, {"sliding_window": 64}],
    ),
    "granite": (
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 1.5,
            "logits_scaling": 8.0,
            "tie_word_embeddings": True,
            "rope_parameters": PLAIN,
        },
        [
            {"embedding_multiplier": 1.0},
            {"residual_multiplier": 1.0},
            {"attention_multiplier": 0.1},
            {"logits_scaling": 1.0},
        ],
    ),
    "qwen3_moe": (
        MIXTURE
        | {"use_sliding_window": True}
        | {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3, "head_dim": 16},
        [{"num_experts_per_tok": 2}, {"norm_topk_prob": True}],
    ),
    "mixtral": (
        MIXTURE | {"num_local_experts": 4, "num_experts_per_tok": 2},
        [{"num_experts_per_tok": 1}, {"sliding_window": None}],
    ),
}
CLASSES = {family: family.capitalize() for family in CASES}
CLASSES |= {"smollm3": "SmolLM3", "gemma3_text": "Gemma3", "qwen3_moe": "Qwen3Moe"}


def make(family, folder, dtype=None):
    """Saves a random checkpoint of the family and returns its PyTorch model."""
    model = getattr(transformers, f"{CLASSES[family]}ForCausalLM")
    config = model.config_class(**(SHAPE | CASES[family][0]))
    config._attn_implementation = "eager"
    model = model(config).eval()
    generator = torch.Generator().manual_seed(len(family))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            draw = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2:
                weight.copy_(
                    draw * (1.5 if "proj" in name or "head" in name else 8) / len(draw[0]) ** 0.5
                )
            else:
                weight.copy_(draw * 0.3 + name.endswith("norm.weight"))
    model = model.to(dtype or torch.float32)
    model.save_pretrained(folder, safe_serialization=True)
    return model


def inputs():
    """Tokens, positions (0 in the padding) and which tokens are real, all [ROWS, TOKENS]."""
    tokens = np.random.default_rng(0).integers(3, 97, (ROWS, TOKENS)).astype(np.int32)
    real = np.arange(TOKENS)[None] >= np.array(PADDING)[:, None]
    positions = np.maximum(np.cumsum(real, 1) - 1, 0).astype(np.int32)
    return np.where(real, tokens, 0), positions, real


def torch_logits(model, tokens, positions, real):
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long),
            position_ids=torch.tensor(positions, dtype=torch.long),
            use_cache=False,
        ).logits
    return logits.float().numpy()


def load(folder, dtype="float32"):
    """The config and the parameters of a folder."""
    model = pretrained.load(folder, dtype)
    return model.config, model.params


def seen(real, slots):
    """bool [ROWS, TOKENS, slots]: the real tokens up to each one."""
    causal = np.arange(slots)[None] <= np.arange(real.shape[1])[:, None]
    return causal[None] & np.pad(real, ((0, 0), (0, slots - real.shape[1])))[:, None]


def run(config, params, tokens, positions, real):
    """Logits [ROWS, TOKENS, V]: a full pass, layers as a scan; prefill and steps, unrolled."""

    # Compiling is what this file's time goes into.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both(params, tokens, positions, mask, wide):
        # Without optimisation, products of bfloat16 in a loop are not implemented on a CPU.
        unroll = config.dtype != "float32" or jax.tree.leaves(params)[0].dtype != jnp.float32
        full, _ = forward(config, params, tokens, positions, None, mask, unroll=unroll)
        model = functools.partial(forward, config, params)
        cache = empty_cache(config, tokens.shape[0], SLOTS, full.dtype, unroll=True)
        first, cache = model(
            tokens[:, :PROMPT], positions[:, :PROMPT], cache, wide[:, :PROMPT], last_only=True
        )

        def step(cache, index):
            token, position, slots = (
                jax.lax.dynamic_slice_in_dim(x, index, 1, 1) for x in (tokens, positions, wide)
            )
            logits, cache = model(token, position, cache, slots)
            return cache, logits[:, 0]

        steps = jnp.arange(PROMPT, TOKENS, dtype=jnp.int32)
        _, rest = jax.lax.scan(step, cache, steps)
        return full, jnp.concatenate([first, jnp.moveaxis(rest, 0, 1)], 1)

    masks = (jnp.asarray(seen(real, slots)) for slots in (TOKENS, SLOTS))
    full, cached = both(params, jnp.asarray(tokens), jnp.asarray(positions), *masks)
    assert full.dtype == jnp.float32
    return np.asarray(full), np.asarray(cached)


@pytest.mark.parametrize("family", CASES)
def test_logits_are_those_of_transformers(family, tmp_path):
    theirs = make(family, tmp_path)
    tokens, positions, real = inputs()
    wanted = torch_logits(theirs, tokens, positions, real)
    scale = np.abs(wanted[real]).max()
    for changes in CASES[family][1]:
        config = type(theirs.config)(**(SHAPE | CASES[family][0] | changes))
        config._attn_implementation = "eager"
        other = type(theirs)(config)
        other.load_state_dict(theirs.state_dict())
        moved = np.abs(torch_logits(other.eval(), tokens, positions, real) - wanted)[real].max()
        assert moved > 1e-2 * scale, changes

    config, params = load(tmp_path)
    assert config.tied == theirs.config.tie_word_embeddings
    full, cached = run(config, params, tokens, positions, real)
    assert np.abs(full - wanted)[real].max() <= 1e-4 * scale
    assert np.isfinite(full).all()
    assert np.abs(cached - full[:, PROMPT - 1 :]).max() <= 1e-5 * scale

    to = pretrained.save(tmp_path, tmp_path / "new", params, {})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(to, attn_implementation="eager")
    np.testing.assert_array_equal(torch_logits(theirs, tokens, positions, real), wanted)


def test_experts_of_a_mixture(tmp_path, monkeypatch):
    """Under vmap low-rank noise of a mixture is that of its tensors, of which none is built."""
    make("qwen3_moe", tmp_path)
    config, params = load(tmp_path)
    tokens, positions, real = inputs()
    experts = tj.population(jax.random.key(0), 2, 0.05, noise=tj.low_rank(1))
    plan, named = make_plan(params, experts.noise), set()
    scales = leaf_scales(params, plan)

    def answer(params):
        rows, places, mask = (jnp.asarray(x[:1]) for x in (tokens, positions, seen(real, TOKENS)))
        return forward(config, params, rows, places, None, mask, unroll=False)[0]

    def expert(column):
        return tj.Population(experts.key, *column, experts.noise)

    def score(column):
        return evaluate(answer, params, expert(column), scales, plan, named=named)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def every(columns):
        plain = jax.lax.map(lambda x: answer(apply_noise(params, expert(x), scales)), columns)
        return answer(params), plain, jax.vmap(score)(columns)

    columns = (experts.ids, experts.sigmas, experts.signs)
    monkeypatch.setattr(layers, "_HELD", 10_000)  # two groups of three experts
    base, wanted, found = map(np.asarray, every(columns))
    size = np.abs(wanted).max()
    assert np.abs(wanted - base).max() > 1e-2 * size
    assert np.abs(found - wanted).max() < 1e-4 * size
    assert not named


def test_real_checkpoint():
    folder = SHARED / "models/stories260K"
    if not folder.is_dir():
        pytest.skip("the model stories260K is not here")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokens, positions, real = inputs()
    wanted = torch_logits(theirs.eval(), tokens, positions, real)
    full, cached = run(*load(folder), tokens, positions, real)
    scale = np.abs(wanted[real]).max()
    assert np.abs(full - wanted)[real].max() <= 1e-4 * scale
    assert np.abs(cached - full[:, PROMPT - 1 :])[real[:, PROMPT - 1 :]].max() <= 1e-5 * scale


@pytest.mark.parametrize("family", ["qwen2", "olmo2", "gemma2"])
def test_bfloat16_is_as_good_as_pytorch_s(family, tmp_path):
    """Against float32 arithmetic on the same bfloat16 weights, no worse than PyTorch's own."""
    theirs = make(family, tmp_path, torch.bfloat16)
    tokens, positions, real = inputs()
    rough = torch_logits(theirs, tokens, positions, real)
    exact = torch_logits(theirs.float(), tokens, positions, real)
    config, params = load(tmp_path, "bfloat16")
    assert config.dtype == "bfloat16"
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    full, cached = run(config, params, tokens, positions, real)

    def error(found):
        return np.sqrt(np.square(found - exact)[real].mean()) / np.abs(exact[real]).max()

    assert 1e-4 < error(full) < 1.5 * error(rough) < 0.05
    assert np.abs(cached - full[:, PROMPT - 1 :]).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("family", CASES)
def test_names_and_shapes_are_the_checkpoint_s(family, tmp_path):
    make(family, tmp_path)
    config, params = load(tmp_path)
    ours, wanted = dict(leaf_rows(params)), stored_tensors(tmp_path)
    assert ours.keys() == wanted.keys()
    assert all(ours[name].shape == wanted[name].shape for name in wanted)
    sizes = cache_bytes(config, 3, 16, jnp.float32)
    cache = empty_cache(config, 3, 16, jnp.float32)
    assert sizes == sum(x.nbytes for x in jax.tree.leaves((cache["keys"], cache["values"])))


def test_configs_are_static(tmp_path):
    """Two readings are one key of a compilation; a changed one is another."""
    make("olmo3", tmp_path)
    one, two = read_config(tmp_path), read_config(tmp_path)
    assert hash(one) == hash(two) and one == two
    assert dataclasses.replace(one, windows=(None,) * 4) != one
