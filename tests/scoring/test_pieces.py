"""Scores of some items at a time: the order of the items, and prompts in chunks of rows."""

import jax
import jax.numpy as jnp
import numpy as np
from classifier import KEY, B, ids

import thicket_jax as tj
from thicket_jax.mapping.placement import place
from thicket_jax.scoring import layouts, pieces
from thicket_jax.selection import rounds as racing
from thicket_jax.selection.race import Race
from thicket_jax.text import prompts


def test_the_order_of_the_items_is_one_permutation_of_the_key_alone():
    order = layouts.item_order(KEY, B)
    assert sorted(order) == list(range(B)) and order.tolist() != sorted(order)
    assert layouts.item_order(jax.random.key(4), B).tolist() != order.tolist()
    assert layouts._ORDER_STREAM >= 2**31  # which no expert's id reaches


def spoken(params, batch):
    """Laid out like generated text: chunks of rows, each output of its own prompt alone."""
    shift = jnp.round(8 * params["w"]).astype(jnp.int32)
    tokens = (batch["tokens"][..., -3:] + shift[None, None]) % 11
    return {"tokens": tokens, "finite": batch["row"] >= 0}


def test_prompts_lie_in_chunks_of_rows_and_longer_batches_take_several_runs():
    rng = np.random.default_rng(0)
    asked = [rng.integers(1, 11, rng.integers(3, 9)).tolist() for _ in range(21)]
    layout = {"rows": 4, "chunks": 3, "width": 8, "pad_id": 0}
    train = prompts.lay_out(asked[:10], **layout)
    test = prompts.lay_out(asked[10:21], first=10, **layout)
    experts, params = tj.population(KEY, 16, 0.5), {"w": jnp.zeros(3)}

    def grade(outputs):
        found = prompts.unlay(outputs["tokens"], 10)
        right = (found.sum(-1) % 3 == 0).astype(np.float32)
        return np.where(prompts.unlay(outputs["finite"], 10), right, np.float32(np.nan))

    placement = place(params, block_size=2)
    plain = tj.Scorer.placed(spoken, params, experts.noise, train, placement, grade=grade)
    scorer = pieces.PieceScorer(
        spoken, params, experts, train, placement, piece=lambda _: 3, grade=grade,
        layout=prompts.LAYOUT,
    )  # fmt: skip
    (whole,) = [part for _, part in plain.stream(experts)]
    np.testing.assert_array_equal(scorer.all_items(experts).items, whole.items)
    found = racing.run(scorer, experts, Race(0.5, (0, 1)), 2)[0]
    assert ids(found.experts) == ids(tj.top_k(experts, whole, 2))
    for given in (test, train):
        (wanted,), (answered,) = (
            plain.on(given).chunks(experts),
            scorer.on(given).chunks(experts),
        )
        count = prompts.LAYOUT.count(given)
        for name in ("tokens", "finite"):
            np.testing.assert_array_equal(
                prompts.unlay(answered.outputs[name], count),
                prompts.unlay(wanted.outputs[name], count),
            )
