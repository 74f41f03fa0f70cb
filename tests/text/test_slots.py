"""A queue of prompts on slots: the tokens are those of all prompts side by side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language_models import CONFIG, make_checkpoint

import thicket_jax as tj
from thicket_jax.text import decode, passes, pretrained, prompts, slots

T, N, ROWS, CHUNKS = 6, 21, 8, 3
FILLER = 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of which some answers end at once, some later, and some not at all."""
    folder = tmp_path_factory.mktemp("tiny")
    model = pretrained.load(make_checkpoint(folder, tie_word_embeddings=False))
    ends = (FILLER, *range(30, 41))
    return dataclasses.replace(model, config=dataclasses.replace(model.config, eos_ids=ends))


def prompts_of(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(2, CONFIG["vocab_size"], length).tolist() for length in lengths]


ASKED = prompts_of([*range(1, 20), 19, 2])


def batch_of(ids, *, rows, chunks, width=20, **sampled):
    laid = prompts.lay_out(ids, rows=rows, chunks=chunks, width=width, pad_id=0)
    return {**laid, **decode.sampling(3, **sampled)}


def flat(out):
    return {name: np.asarray(x).reshape(-1, *x.shape[2:])[:N] for name, x in out.items()}


def lengths_of(tokens, ends):
    stops = np.isin(tokens, ends)
    return np.where(stops.any(-1), stops.argmax(-1) + 1, T)


@pytest.fixture(scope="module")
def plain(tiny):
    """All prompts side by side; (parameters, sampling) → tokens [N, T] and finite [N]."""
    fn = jax.jit(decode.decoder(tiny.config, T, tiny.dtype))

    def run(params, **sampled):
        return flat(fn(params, batch_of(ASKED, rows=N, chunks=1, **sampled), np.int32(0)))

    return run


@pytest.fixture(scope="module")
def queued(tiny):
    """The same prompts on 8 slots, and the number of slot-steps."""
    how = passes.Passes(tiny.config, T, tiny.dtype, None, 0)

    def run(params, batch, draw):
        merged = {name: jnp.concatenate(list(x)) for name, x in batch.items() if np.ndim(x) > 1}
        return slots.decode(how, ROWS, params, {**batch, **merged}, draw)

    return jax.jit(run)


def assert_same(found, wanted):
    for name in ("tokens", "finite"):
        np.testing.assert_array_equal(np.asarray(found[name])[:N], wanted[name])


def test_the_tokens_are_those_of_all_side_by_side(tiny, plain, queued):
    batch = batch_of(ASKED, rows=ROWS, chunks=CHUNKS)
    found, counted = queued(tiny.params, batch, np.int32(0))
    wanted = plain(tiny.params)
    assert_same(found, wanted)
    assert (np.asarray(found["tokens"][N:]) == FILLER).all()
    lengths = lengths_of(wanted["tokens"], tiny.config.eos_ids)
    assert set(lengths) >= {1, 2, T}
    # The steps are as many as the rules say: the longest prompts first.
    order = np.argsort([-len(prompt) for prompt in ASKED], kind="stable")
    assert counted == slots.slot_steps(lengths[None, order], ROWS)
    # Sampled tokens are drawn by the prompt's number and its own step, whatever its slot.
    hot, _ = queued(
        tiny.params, batch_of(ASKED, rows=ROWS, chunks=CHUNKS, temperature=1.5), np.int32(0)
    )
    assert_same(hot, plain(tiny.params, temperature=1.5))
    assert (np.asarray(hot["tokens"]) != np.asarray(found["tokens"])).any()


def test_a_row_that_breaks_breaks_none_that_takes_its_slot(tiny, plain, queued):
    odd = ASKED[3][0]
    broken = jax.tree.map(lambda x: x, tiny.params)
    table = broken["model"]["embed_tokens"]
    table["weight"] = table["weight"].at[odd].set(jnp.nan)
    found, _ = queued(broken, batch_of(ASKED, rows=ROWS, chunks=CHUNKS), np.int32(0))
    wanted = plain(broken)
    assert_same(found, wanted)
    assert 0 < wanted["finite"].sum() < N


@pytest.fixture(scope="module")
def moved(tiny):
    experts = tj.population(jax.random.key(0), 3, 0.3)
    return [tj.perturb(tiny.params, experts[i]) for i in range(3)]


def with_draft(batch, draft):
    """The batch with drafts of the first prompts; the rest have none. What is expected is wrong."""
    whole = np.full((CHUNKS * ROWS, T), FILLER, np.int32)
    whole[: len(draft)] = draft
    expected = np.random.default_rng(4).integers(0, 9, (CHUNKS, ROWS)).astype(np.int32)
    return {**batch, "draft": whole.reshape(CHUNKS, ROWS, T), "expected": expected}


def test_drafts_change_no_token_but_the_steps(tiny, plain, queued, moved):
    batch = batch_of(ASKED, rows=ROWS, chunks=CHUNKS)
    wanted = plain(tiny.params)
    # Their own answers are right to the end, which is left to a step; the first longest first.
    found, counted = queued(tiny.params, with_draft(batch, wanted["tokens"]), np.int32(0))
    assert_same(found, wanted)
    assert counted == slots.slot_steps(np.ones((1, N), int), ROWS)
    # The base's are right for a while.
    lengths = lengths_of(wanted["tokens"], tiny.config.eos_ids)
    for params in moved:
        own = plain(params)
        found, _ = queued(params, with_draft(batch, wanted["tokens"]), np.int32(0))
        assert_same(found, own)
        assert (own["tokens"] != wanted["tokens"]).any(-1).sum() > 3
    # What goes on behind an end is not looked at, and nothing is where tokens are drawn.
    spoilt = np.where(np.arange(T) > lengths[:, None], 3, wanted["tokens"])
    hot = batch_of(ASKED, rows=ROWS, chunks=CHUNKS, temperature=1.5)
    assert_same(queued(tiny.params, with_draft(batch, spoilt), np.int32(0))[0], wanted)
    drawn = plain(tiny.params, temperature=1.5)
    assert_same(queued(tiny.params, with_draft(hot, wanted["tokens"]), np.int32(0))[0], drawn)
    broken = jax.tree.map(lambda x: x * jnp.asarray(jnp.nan, x.dtype), tiny.params)
    found, _ = queued(broken, with_draft(batch, wanted["tokens"]), np.int32(0))
    assert not np.asarray(found["finite"])[:N].any()


def test_experts_of_a_block_decode_as_each_alone(tiny, plain, queued, moved):
    drafts = plain(tiny.params)["tokens"][::2]
    batch = with_draft(batch_of(ASKED, rows=ROWS, chunks=CHUNKS), drafts)
    alone = [queued(params, batch, np.int32(0)) for params in moved]
    together = jax.tree.map(lambda *xs: jnp.stack(xs), *moved)
    found, _ = jax.jit(jax.vmap(queued, in_axes=(0, None, None)))(together, batch, np.int32(0))
    for i, (wanted, _) in enumerate(alone):
        assert_same(jax.tree.map(lambda x, i=i: x[i], found), flat_of(wanted))
    assert len({row.tobytes() for row in np.asarray(found["tokens"])}) == 3


def flat_of(out):
    return {name: np.asarray(x)[:N] for name, x in out.items()}


def test_one_slot_and_windows_and_a_shared_prefix_and_a_scan(tiny, monkeypatch):
    """Windows are over ages, which wrap in the ring, and reach into the prefix."""
    config = dataclasses.replace(tiny.config, windows=(5,))
    ids = [ASKED[18][:9] + prompt for prompt in ASKED[:6]]

    def run(rows, chunks, prefix, unroll=False):
        batch = batch_of(ids, rows=rows, chunks=chunks, width=16)
        fn = jax.jit(decode.decoder(config, T, tiny.dtype, unroll, prefix))
        lowered = fn.lower(tiny.params, batch, np.int32(0))
        out = lowered.compile()(tiny.params, batch, np.int32(0))
        whiles = lowered.as_text().count("stablehlo.while")
        return np.asarray(out["tokens"]).reshape(-1, T)[: len(ids)], whiles

    wanted, few = run(6, 1, 0)
    found, whiles = run(1, 6, 9)
    np.testing.assert_array_equal(found, wanted)
    assert whiles - few <= 4
    np.testing.assert_array_equal(run(6, 1, 9, unroll=True)[0], wanted)
    monkeypatch.setattr(slots, "_FEW", 4)  # the last row goes on in one slot of the cache of four
    np.testing.assert_array_equal(run(4, 2, 9)[0], wanted)


def test_half_precision_is_finite(tiny):
    cast = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params)
    batch = batch_of(ASKED, rows=7, chunks=CHUNKS)
    out = jax.jit(decode.decoder(tiny.config, T, "bfloat16"))(cast, batch, np.int32(0))
    assert out["finite"].all()
    assert out["tokens"].shape == (CHUNKS, 7, T)


def test_the_steps_of_equal_answers_and_of_one_long_one():
    # 16 slots, two at a time: two rounds of 10 steps; the last rows are all of them.
    assert slots.slot_steps(np.full((1, 32), 10), 16) == 16 * 20
    # One long answer goes on in 4 of 16 slots when the others are done.
    lengths = np.full((1, 32), 10)
    lengths[0, 0] = 30
    assert slots.slot_steps(lengths, 16) == 16 * 20 + 4 * 10
