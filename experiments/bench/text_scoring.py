"""The search's scoring of a language model's experts, against a loop over them in PyTorch.

Ours is what `thicket run` does: perturb, decode, and meanwhile grade every text, in worker
processes. The loop is `torch_generate.py`, which perturbs and generates only.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.bench import timing
from experiments.bench.torch_worker import TorchWorker, has_torch
from experiments.common import machine
from thicket_jax.errors import RunError
from thicket_jax.experts.noise import Noise
from thicket_jax.experts.population import Population, population, unperturbed
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.runs import log as run_log
from thicket_jax.scoring.scorer import Scorer
from thicket_jax.tasks import task
from thicket_jax.tasks.language import stories
from thicket_jax.text.config import read_config

LOOP = "PyTorch, transformers generate"
SEARCH = 512  # experts of the search whose calls are imitated: it logs every twentieth of them
SAME_ROWS = 0.9  # of the base's greedy continuations, token for token, at least
INSTALL = (
    "PyTorch or transformers is not installed, so the loop is left out; name a Python that has "
    "both with --torch-python"
)


@dataclasses.dataclass(frozen=True)
class How:
    """What is measured: noise laws, block sizes, sigma, experts a sample, rounds."""

    laws: tuple[str, ...]
    blocks: tuple[int | str, ...]
    sigma: float
    num: int
    rounds: int


def measure(
    task: task.Task, options: stories.Options, how: How, torch_python: str | None
) -> dict[str, Any]:
    """Times every law with every block size, and the loop, in turn.

    Before anything is timed, both programs must generate the same tokens with the base.

    Returns:
      JSON values: seconds per expert with all samples, experts/s, tokens/s, ratios to the loop.
    """
    ours = {
        f"{law}, block {block}": _Ours(task, law, block, how)
        for law in how.laws
        for block in how.blocks
    }
    contenders: dict[str, Callable[[], tuple[float, float]]] = dict(ours)
    counts, same, about = dict.fromkeys(contenders, how.num), None, None
    with contextlib.ExitStack() as stack:
        if torch_python is not None and has_torch(torch_python, "transformers"):
            worker = stack.enter_context(
                TorchWorker(torch_python, machine.label() != "cpu", "torch_generate.py")
            )
            eos = list(read_config(options.model).eos_ids)
            request = {"sigma": how.sigma, "num_tokens": options.max_tokens, "eos": eos}
            _load(worker, task, options.model)
            same = _same_rows(worker, next(iter(ours.values())), {**request, "sigma": 0.0})
            few = max(2, how.num // 16)
            worker.choose_threads(machine.cores(), lambda: _asked(worker, 2, request)()[0])
            contenders[LOOP], counts[LOOP] = _asked(worker, few, request), few
            about = worker.about
        generated = {name: once()[1] for name, once in contenders.items()}  # warms caches, pools

        def timed(name: str) -> Callable[[], float]:
            def once() -> float:
                seconds, generated[name] = contenders[name]()
                return seconds

            return once

        samples = timing.alternate({name: timed(name) for name in contenders}, how.rounds)
    rows: dict[str, dict[str, Any]] = {}
    for name, values in samples.items():
        ms = timing.summary([1e3 * value / counts[name] for value in values])
        rate = 1e3 / ms["median"]
        tokens = rate * generated[name] / counts[name]
        rows[name] = {"ms": ms, "experts_per_s": rate, "tokens_per_s": tokens}
    for row in rows.values():
        plain = rows.get(LOOP)
        row["ratio"] = None if plain is None else plain["ms"]["median"] / row["ms"]["median"]
    return {
        "experts_per_sample": counts,
        "same_base_rows": same,
        "block_size": {
            name: one.scorer.expert_map.block(one.experts) for name, one in ours.items()
        },
        "compile_seconds": {
            name: one.scorer.expert_map.compile_seconds for name, one in ours.items()
        },
        "torch": about,
        "missing": None if about is not None else INSTALL,
        "rows": rows,
    }


class _Ours:
    """A compiled scorer, and experts that it has not seen: a graded text is never graded again."""

    def __init__(self, task: task.Task, law: str, block: int | str, how: How) -> None:
        """Compiles; draws experts for every round and one more."""
        self.num, self.used = how.num, 0
        total = how.num * (how.rounds + 1)
        self.experts: Population = population(jax.random.key(0), total, how.sigma, noise=Noise(law))
        self.scorer = Scorer.placed(
            task.problem.score_fn,
            task.problem.params,
            self.experts.noise,
            task.problem.train,
            Placement(devices.make_mapper(), block),
            grade=task.problem.grade,
            with_id=task.problem.with_id,
        )
        self.scorer.expert_map.prepare(self.experts)

    def __call__(self) -> tuple[float, float]:
        """Scores the next experts; returns seconds, and the tokens that were generated."""
        fresh = self.experts[self.used : self.used + self.num]
        self.used += self.num
        most = run_log.most_per_call(SEARCH)
        began = time.perf_counter()
        parts = [part for _, part in self.scorer.stream(fresh, most=most)]
        seconds = time.perf_counter() - began
        return seconds, float(sum(part.columns["tokens"].sum() for part in parts))


def _asked(
    worker: TorchWorker, num: int, request: dict[str, Any]
) -> Callable[[], tuple[float, float]]:
    def once() -> tuple[float, float]:
        found = worker.ask("score", num=num, **request)
        return float(found["seconds"]), float(found["tokens"])

    return once


def _load(worker: TorchWorker, task: task.Task, model: str) -> None:
    """Gives the loop the same checkpoint and prompts, padded left to the longest of them."""
    tokens, start = (np.asarray(task.problem.train[name])[0] for name in ("tokens", "start"))
    first = int(start.min())
    mask = np.arange(tokens.shape[1])[None] >= start[:, None]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "prompts.npz"
        np.savez(path, tokens=tokens[:, first:], mask=mask[:, first:])
        worker.ask("load", folder=model, prompts=str(path))


def _same_rows(worker: TorchWorker, ours: _Ours, request: dict[str, Any]) -> float:
    """The share of prompts that both programs continue with the same tokens, with the base.

    Raises:
      RunError: they differ, so that their times are not of the same work.
    """
    theirs = np.asarray(worker.ask("score", num=1, **request)["last"])
    (chunk,) = ours.scorer.chunks(unperturbed(ours.experts))
    same = float((chunk.outputs["tokens"][0, 0][:, : theirs.shape[1]] == theirs).all(-1).mean())
    if same < SAME_ROWS:
        raise RunError(f"only {same:.0%} of the base's texts are those of PyTorch; no comparison")
    return same
