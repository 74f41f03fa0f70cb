"""Experts of a language model, on stories260K, greedy, float32: two questions, one run.

How much faster is the search's scoring than a loop over experts in PyTorch (`text_scoring.py`)?
And what do experts cost beside decoding the base with as many rows (`text_share.py`)?
"""

from typing import Any

from experiments.bench import text_scoring, text_share, timing
from experiments.bench.torch_worker import threads_text
from experiments.common.readme import markdown_table, number
from thicket_jax.mapping import devices
from thicket_jax.tasks.language import stories

SIGMA, BLOCK = 0.003, 16
LAWS = ("gaussian", "rademacher")
FASTER, SHARE = 8.0, 0.6


def run(quick: bool, torch_python: str | None, model: str) -> dict[str, Any]:
    """Measures both, contenders in turn.

    Args:
      quick: few tokens, few experts, two rounds.
      torch_python: an interpreter that has torch and transformers.
      model: checkpoint folder.

    Returns:
      JSON values: rates of every contender with all samples, ratios, shares, targets.
    """
    prompts, tokens, num, calls, rounds = (4, 8, 32, 1, 2) if quick else (32, 48, 128, 2, 5)
    options = stories.Options(
        model=model, train_items=prompts, test_items=1, max_tokens=tokens
    ).resolved()
    task = stories.build(options)
    assert task.close is not None
    how = text_scoring.How(LAWS, ("auto", BLOCK), SIGMA, num, rounds)
    try:
        scoring = text_scoring.measure(task, options, how, torch_python)
        share = text_share.measure(task.problem, LAWS, SIGMA, BLOCK, calls, rounds)
    finally:
        task.close()
    targets = [
        timing.target(
            f"scoring, {law}: times as fast as the transformers loop",
            scoring["rows"][f"{law}, block auto"]["ratio"],
            FASTER,
            at_least=True,
        )
        for law in LAWS
    ]
    targets += [
        timing.target(
            f"{BLOCK} experts {way}, {law}: share of decoding the base so",
            share["rows"][f"{law}, {way}"]["share"],
            SHARE,
            at_least=True,
        )
        for way in ("one by one", "side by side")
        for law in LAWS
    ]
    return {
        "model": task.model,
        "prompts": prompts,
        "prompt_tokens": task.provenance["prompt_tokens"],
        "tokens": tokens,
        "sigma": SIGMA,
        "rounds": rounds,
        "devices": devices.make_mapper().count,
        "torch": scoring.pop("torch"),
        "scoring": scoring,
        "share": share,
        "targets": targets,
    }


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    return "\n\n".join([*_scoring_text(result), *_share_text(result)])


def _scoring_text(result: dict[str, Any]) -> list[str]:
    found = result["scoring"]
    counts, same = found["experts_per_sample"], found["same_base_rows"]
    rows = [
        [
            name,
            number(row["experts_per_s"]),
            number(row["tokens_per_s"]),
            *_times(row["ms"]),
            number(row["ratio"]),
        ]
        for name, row in found["rows"].items()
    ]
    head = ["scoring", "experts/s", "tokens/s", "ms per expert, median", "spread", "times as fast"]
    blocks = " and ".join(f"{found['block_size'][f'{law}, block auto']} for {law}" for law in LAWS)
    about = (
        f"{result['model']}: {result['prompts']} prompts, at most {result['tokens']} new tokens, "
        f"greedy, sigma {result['sigma']:g}, {result['devices']} device(s), {result['rounds']} "
        f"alternated rounds of {counts[f'{LAWS[0]}, block auto']} experts. Ours grades every text. "
        f"Block auto is {blocks}."
    )
    if same is not None:
        about += (
            f" PyTorch: {counts[text_scoring.LOOP]} experts a round, perturbed and generated, not "
            f"graded; {100 * same:.0f} % of the base's texts are the same token for token."
        )
    return [about, markdown_table(head, rows), found["missing"] or threads_text(result["torch"])]


def _share_text(result: dict[str, Any]) -> list[str]:
    found = result["share"]
    rows = [
        [
            name,
            number(row["texts_per_s"]),
            *_times({key: 1e3 * row["seconds"][key] for key in ("median", "min", "max")}),
            f"{100 * row['share']:.0f} %",
            f"{100 * row['share_of_fastest']:.0f} %",
        ]
        for name, row in found["rows"].items()
    ]
    head = ["decoding", "texts/s", "ms per call, median", "spread"]
    head += ["share of the base so", "share of the faster base"]
    about = (
        "Decoding alone, noise included, nothing graded. Every device decodes "
        f"{found['rows_per_device']} rows a call: the {result['prompts']} prompts with {BLOCK} "
        f"experts, or {BLOCK} times with the base. Side by side: one vmap over the experts, and "
        "all rows of the base in one batch. One by one: an expert after the other, and as many "
        "chunks of the base."
    )
    return [about, markdown_table(head, rows)]


def _times(ms: dict[str, float]) -> list[str]:
    return [number(ms["median"]), f"{number(ms['min'])} to {number(ms['max'])}"]
