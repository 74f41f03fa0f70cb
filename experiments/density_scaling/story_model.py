"""stories260K's own row: a real, small language model on a task of its own."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thicket_jax as tj
from experiments.density_scaling.measure import CALIBRATION, Counts, Setting, summarise
from thicket_jax.experts.population import unperturbed
from thicket_jax.mapping.placement import place
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.scoring.scores import concatenate
from thicket_jax.tasks.language import stories
from thicket_jax.text import pretrained, prompts
from thicket_jax.text.model import forward

TOKENS = 48


def measure(
    folder: str, counts: Counts, settings: tuple[Setting, ...], seed: int
) -> tuple[int, list[dict[str, Any]]]:
    """Scores a population of each setting around the checkpoint, on hero consistency.

    The change of a setting is that of the logits of what the model itself writes, greedily.

    Args:
      folder: of the checkpoint.
      counts: how many experts and prompts.
      settings: which populations.
      seed: of the experts' key, and of the prompts.

    Returns:
      The number of parameters, and one record for each setting, with accuracy alone.
    """
    options = stories.Options(
        model=folder, num=counts.num, train_items=counts.items, test_items=1, max_tokens=TOKENS,
        seed=seed, k=(1,),
    ).resolved()  # fmt: skip
    task = stories.build(options)
    key = jax.random.key(seed)
    found = []
    try:
        logits, written = _logits(folder, task, counts.items)
        scorer = None
        for setting in settings:
            began = time.perf_counter()
            sigma = setting.sigma
            if sigma is None:
                assert setting.change is not None
                sigma = tj.calibrate_sigma(
                    logits, task.problem.params, written, target=setting.change, measure="kl",
                    key=jax.random.fold_in(key, 1), **CALIBRATION,
                )  # fmt: skip
            experts = tj.population(key, counts.num, sigma)
            if scorer is None:
                problem = task.problem
                scorer = Scorer.placed(
                    problem.score_fn, problem.params, experts.noise, problem.train,
                    place(problem.params), grade=problem.grade, with_id=True,
                )  # fmt: skip
            base = concatenate([part for _, part in scorer.stream(unperturbed(experts))])
            scores = concatenate([part for _, part in scorer.stream(experts)])
            assert base.items is not None and scores.items is not None
            said = summarise(
                base.items[0][None], scores.items[:, None], scores.failed, sigma, ("hero",)
            )
            found.append(
                {
                    "setting": setting.name,
                    "sigma": sigma,
                    "failed": int(scores.failed.sum()),
                    "accuracy": said,
                    "seconds": time.perf_counter() - began,
                }
            )
    finally:
        assert task.close is not None
        task.close()
    return sum(x.size for x in jax.tree.leaves(task.problem.params)), found


def _logits(folder: str, task: Any, count: int) -> tuple[Any, dict[str, np.ndarray]]:
    """A function of the parameters: logits [Q, V] of all tokens that the model writes."""
    model = pretrained.load(folder)
    wrote = jax.jit(task.problem.score_fn)(task.problem.params, task.problem.train, np.int32(0))[
        "tokens"
    ]
    wrote = prompts.unlay(np.asarray(wrote)[None], count)[0]
    asked = prompts.unlay(np.asarray(task.problem.train["tokens"])[None], count)[0]
    start = prompts.unlay(np.asarray(task.problem.train["start"])[None], count)[0]
    width = asked.shape[1] + wrote.shape[1]
    tokens = np.zeros((count, width), np.int32)
    places = np.zeros((count, width), bool)
    for row in range(count):
        line = np.concatenate([asked[row, start[row] :], wrote[row]])
        tokens[row, : len(line)] = line
        # The logits of a token stand one place before it.
        begin = asked.shape[1] - start[row] - 1
        places[row, begin : begin + wrote.shape[1]] = True

    def logits(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        rows, steps = batch["tokens"].shape
        positions = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[None], (rows, steps))
        causal = jnp.tril(jnp.ones((steps, steps), bool))[None]
        causal = jnp.broadcast_to(causal, (rows, steps, steps))
        every = forward(model.config, params, batch["tokens"], positions, None, causal)[0]
        return every.reshape(-1, every.shape[-1])[batch["places"]]

    return logits, {"tokens": tokens, "places": np.flatnonzero(places)}
