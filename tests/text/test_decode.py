"""Decoding: equal to transformers token for token, and the same alone, in blocks and on devices."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language_models import CONFIG, STORIES, make_checkpoint

import thicket_jax as tj
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.scales import leaf_scales
from thicket_jax.mapping.implicit import evaluate
from thicket_jax.mapping.placement import place
from thicket_jax.tasks.language import stories
from thicket_jax.text import attention, choosing, decode, passes, pretrained, prompts
from thicket_jax.text.cache import cache_bytes, empty_cache
from thicket_jax.text.model import forward

needs_stories = pytest.mark.skipif(
    not STORIES.is_dir(), reason=f"the model stories260K is not at {STORIES}"
)
T = 6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return pretrained.load(make_checkpoint(tmp_path_factory.mktemp("tiny"), eos_token_id=[1, 7]))


def batch_of(lengths, *, chunks=1, width=8, temperature=0.0, top_p=1.0, first=0, seed=0):
    random = np.random.default_rng(seed)
    ids = [random.integers(2, CONFIG["vocab_size"], length).tolist() for length in lengths]
    rows = -(-len(lengths) // chunks)
    laid = prompts.lay_out(ids, rows=rows, chunks=chunks, width=width, pad_id=0, first=first)
    return {**laid, **decode.sampling(3, temperature, top_p)}, ids


@pytest.fixture(scope="module")
def whole(tiny):
    """Logits after a sequence, without a cache and without padding on its left."""
    S = 8 + T
    mask = jnp.tril(jnp.ones((S, S), bool))[None]

    @jax.jit
    def logits(params, ids):
        positions = jnp.arange(S, dtype=jnp.int32)[None]
        return forward(tiny.config, params, ids[None], positions, None, mask)[0][0]

    def after(params, ids):
        filled = np.zeros(S, np.int32)
        filled[: len(ids)] = ids
        return np.asarray(logits(params, filled))[len(ids) - 1]

    return after


def slow_greedy(after, params, ids, eos):
    """The whole sequence again for every token."""
    out = []
    while len(out) < T and not (out and out[-1] in eos):
        out.append(int(after(params, ids + out).argmax()))
    return out + [eos[0]] * (T - len(out))


@pytest.fixture(scope="module")
def decoded(tiny):
    batch, ids = batch_of([3, 8, 1, 5])
    fn = jax.jit(decode.decoder(tiny.config, T, tiny.dtype))
    return batch, ids, fn, jax.device_get(fn(tiny.params, batch, np.int32(0)))


def test_equals_the_whole_sequence_again_for_every_token(tiny, whole, decoded):
    _, ids, _, out = decoded
    for row, prompt in enumerate(ids):
        assert out["tokens"][0, row].tolist() == slow_greedy(whole, tiny.params, prompt, (1, 7))
    assert out["finite"].all()


def test_padding_and_filler_rows_change_nothing_and_chunks_follow_one_another(tiny, decoded):
    _, ids, fn, out = decoded
    wide = {
        **prompts.lay_out(ids, rows=3, chunks=2, width=12, pad_id=9),
        **decode.sampling(0),
    }
    found = fn(tiny.params, wide, np.int32(0))["tokens"].reshape(6, T)
    np.testing.assert_array_equal(found[:4], out["tokens"][0])
    assert (np.asarray(found[4:]) == 1).all()  # a filler row has ended before it begins


def test_many_experts_decode_as_each_alone(tiny, decoded):
    batch, _, fn, _ = decoded
    experts = tj.population(jax.random.key(0), 3, 0.2)
    moved = [tj.perturb(tiny.params, experts[i]) for i in range(3)]
    alone = np.stack([fn(params, batch, np.int32(0))["tokens"] for params in moved])
    assert len({row.tobytes() for row in alone}) > 1
    together = jax.tree.map(lambda *xs: jnp.stack(xs), *moved)
    raw = decode.decoder(tiny.config, T, tiny.dtype)
    block = jax.jit(jax.vmap(raw, in_axes=(0, None, None)))(together, batch, np.int32(0))
    np.testing.assert_array_equal(block["tokens"], alone)
    # Blocks of one expert under lax.map, and devices, are in the next test.


def test_scoring_experts_gives_their_own_answers_in_any_block(tiny, decoded):
    batch, _, fn, _ = decoded
    experts = tj.population(jax.random.key(0), 3, 0.2)
    alone = [fn(tj.perturb(tiny.params, e), batch, np.int32(0))["tokens"] for e in experts]
    wanted = np.asarray(alone).sum((2, 3)).astype(np.float32).reshape(3, 1)
    raw = decode.decoder(tiny.config, T, tiny.dtype)

    def outputs(params, data, id_):
        return raw(params, data, id_)["tokens"].sum(-1)

    def grade(tokens):
        return np.asarray(tokens).sum(-1).astype(np.float32)

    for block, devices in ((1, 1), (2, 2)):
        placement = place(tiny.params, devices=jax.devices()[:devices], block_size=block)
        scores = tj.Scorer.placed(
            outputs, tiny.params, experts.noise, batch, placement, grade=grade, with_id=True
        )(experts)
        np.testing.assert_array_equal(scores.items, wanted)


def test_stops_when_every_row_has_ended(tiny):
    """A model that can only say the end takes no step, however many are allowed."""
    batch, _ = batch_of([2, 3])
    params = jax.tree.map(jnp.zeros_like, tiny.params)  # all logits are equal: token 0
    config = dataclasses.replace(tiny.config, eos_ids=(0,))
    run = jax.jit(decode.decoder(config, 300, tiny.dtype)).lower(params, batch, np.int32(0))
    assert not np.asarray(run.compile()(params, batch, np.int32(0))["tokens"]).any()
    assert "while" in run.as_text()


def test_sampling_is_keyed_by_draw_row_and_step(tiny):
    raw = jax.jit(decode.decoder(tiny.config, T, tiny.dtype))
    batch, ids = batch_of([3, 8, 1, 5], temperature=1.5)
    first = np.asarray(raw(tiny.params, batch, np.int32(0))["tokens"])
    np.testing.assert_array_equal(first, raw(tiny.params, batch, np.int32(0))["tokens"])
    assert (first != np.asarray(raw(tiny.params, batch, np.int32(1))["tokens"])).any()
    # The same item in another place of another batch is the same text.
    moved = {
        **prompts.lay_out(ids[2:] + ids[:2], rows=4, chunks=1, width=8, pad_id=0),
        **decode.sampling(3, 1.5),
    }
    moved["row"] = np.asarray([[2, 3, 0, 1]], np.int32)
    found = np.asarray(raw(tiny.params, moved, np.int32(0))["tokens"])
    np.testing.assert_array_equal(found[0, [2, 3, 0, 1]], first[0])
    # A temperature close to nothing, and a nucleus of one token, are greedy.
    greedy = raw(tiny.params, batch_of([3, 8, 1, 5])[0], np.int32(0))["tokens"]
    for settings in ({"temperature": 1e-5}, {"temperature": 1.0, "top_p": 1e-6}):
        cold = raw(tiny.params, batch_of([3, 8, 1, 5], **settings)[0], np.int32(0))["tokens"]
        np.testing.assert_array_equal(cold, greedy)


def test_sampled_frequencies_are_the_softmax():
    logits = jnp.log(jnp.asarray([0.5, 0.3, 0.15, 0.05]))
    R = 4000
    batch = {"row": jnp.arange(R, dtype=jnp.int32)}
    step, draw = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.7)):
        entries = {**batch, **decode.sampling(0, temperature, top_p)}
        drawn = jax.jit(choosing.next_tokens)(jnp.tile(logits, (R, 1)), entries, draw, step)
        wanted = np.exp(np.asarray(logits) / temperature)
        if top_p < 1:
            wanted = wanted * np.asarray([1, 1, 0, 0])  # .5 + .3 is the first sum to reach .7
        wanted = wanted / wanted.sum()
        share = np.bincount(np.asarray(drawn), minlength=4) / R
        assert (np.abs(share - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / R) + 1e-9).all()


def test_the_argmax_is_the_first_largest_and_stays_in_range():
    logits = jnp.asarray([[1.0, 3.0, 3.0], [jnp.nan, 1.0, 2.0], [-jnp.inf, -jnp.inf, 0.0]])
    assert choosing.first_largest(logits).tolist() == [1, 2, 2]


def test_a_model_that_breaks_is_not_finite(tiny, decoded):
    batch, _, fn, _ = decoded
    broken = jax.tree.map(lambda x: x * jnp.asarray(jnp.nan, x.dtype), tiny.params)
    assert not np.asarray(fn(broken, batch, np.int32(0))["finite"]).any()


def test_long_prompts_attend_in_chunks_of_queries(monkeypatch):
    draw = np.random.default_rng(0)
    queries, keys, values = (
        draw.standard_normal(shape).astype(np.float32)
        for shape in ((2, 12, 2, 3, 4), (2, 2, 4, 12), (2, 2, 4, 12))
    )
    mask = np.broadcast_to(np.tril(np.ones((12, 12), bool)), (2, 12, 12))

    def run(queries, keys, values, mask):
        return attention.attend(queries, (keys,), (values,), (mask,), 0.5)

    whole = jax.jit(lambda *x: run(*x))(queries, keys, values, mask)
    monkeypatch.setattr(attention, "_SCORES", 4 * 2 * 6 * 12 * 5)  # five queries: chunks of four
    chunked = jax.jit(lambda *x: run(*x)).lower(queries, keys, values, mask)
    assert "while" in chunked.as_text()
    np.testing.assert_allclose(chunked.compile()(queries, keys, values, mask), whole, rtol=1e-5)


def test_large_logits_and_long_prompts_come_in_parts(tiny, decoded, monkeypatch):
    """Of the vocabulary, of the rows: as for models whose logits would outweigh their caches."""
    batch, _, fn, greedy = decoded
    drawn = {**batch, **decode.sampling(3, 0.8, 0.7)}
    wanted = greedy, fn(tiny.params, drawn, np.int32(1))
    monkeypatch.setattr(passes, "LOGITS_BYTES", 4 * 4 * 20)  # of 48 tokens in three parts, the last
    monkeypatch.setattr(passes, "_ACTIVATIONS", 4 * 8 * 112)  # from 32; of four rows one by one
    raw = decode.decoder.__wrapped__(tiny.config, T, tiny.dtype)
    parts = jax.jit(raw)
    for each, one in zip((batch, drawn), wanted, strict=True):
        found = parts(tiny.params, each, np.int32(each is drawn))
        np.testing.assert_array_equal(found["tokens"], one["tokens"])
        assert found["finite"].all()
    broken = jax.tree.map(lambda x: x * np.float32("nan"), tiny.params)
    assert not parts(broken, batch, np.int32(0))["finite"].any()
    # Low-rank experts, whose head is cut where it is W and a step.
    expert = tj.population(jax.random.key(0), 3, 0.2, noise=tj.low_rank(1))[2]
    plan, built = make_plan(tiny.params, expert.noise), set()
    scales = leaf_scales(tiny.params, plan)
    moved = fn(tj.perturb(tiny.params, expert), batch, np.int32(0))["tokens"]
    implicit = jax.jit(
        lambda e: evaluate(raw, tiny.params, e, scales, plan, batch, np.int32(0), named=built)
    )
    np.testing.assert_array_equal(implicit(expert)["tokens"], moved)
    assert not built and (np.asarray(moved) != greedy["tokens"]).any()


def test_layers_as_a_scan_decode_the_same_tokens(tiny, decoded):
    batch, _, _, out = decoded
    fn = jax.jit(decode.decoder(tiny.config, T, tiny.dtype, unroll=False))
    scanned = jax.device_get(fn(tiny.params, batch, np.int32(0)))
    np.testing.assert_array_equal(scanned["tokens"], out["tokens"])


def test_one_function_object_for_equal_settings(tiny):
    assert decode.decoder(tiny.config, T, "float32") is decode.decoder(tiny.config, T, "float32")


def test_the_cache_has_the_size_that_is_announced(tiny):
    cache = empty_cache(tiny.config, 3, 10, jnp.float32)
    held = sum(x.nbytes for x in (*cache["keys"], *cache["values"]))
    assert held == cache_bytes(tiny.config, 3, 10, "float32")


# What transformers' generate wrote after each of these prompts, in float32.
WROTE = pathlib.Path(__file__).parent / "stored" / "stories260K.json"


@pytest.fixture(scope="module")
def told():
    """64 prompts laid out, and what stories260K writes after each, int32 [64, 48]."""
    model = pretrained.load(STORIES)
    tokenizer = prompts.open_tokenizer(STORIES)
    random = np.random.default_rng(0)
    rows = [
        {"animal": random.choice(stories.ANIMALS), "name": random.choice(stories.NAMES)}
        for _ in range(60)
    ]
    asked = [stories.prompt(row) for row in rows]
    asked += ["Once", "Lily and Tom", "The big red ball was", "One day, " * 6]
    ids = [prompts.render(tokenizer, text, None, False) for text in asked]
    batch = {
        **prompts.lay_out(ids, rows=64, chunks=1, width=48, pad_id=0),
        **decode.sampling(0),
    }
    fn = jax.jit(decode.decoder(model.config, 48, model.dtype))
    found = np.asarray(fn(model.params, batch, np.int32(0))["tokens"])[0]
    return batch, found


@needs_stories
def test_greedy_is_what_transformers_wrote_after_64_prompts(told):
    np.testing.assert_array_equal(told[1], np.asarray(json.loads(WROTE.read_text())))


@needs_stories
def test_what_is_stored_is_what_transformers_writes(told):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    batch = told[0]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    tokens, starts = torch.tensor(batch["tokens"][0]), torch.tensor(batch["start"][0])
    mask = (torch.arange(48)[None] >= starts[:, None]).long()
    with torch.no_grad():
        out = theirs.generate(
            tokens.long(), attention_mask=mask, max_new_tokens=48, do_sample=False, pad_token_id=2
        )
    wanted = np.full((64, 48), 2)
    wanted[:, : out.shape[1] - 48] = out[:, 48:].numpy()
    np.testing.assert_array_equal(np.asarray(json.loads(WROTE.read_text())), wanted)
