"""One expert's answers of unequal lengths: what each part of the decoder's queue gives, in turn.

Chunks of R prompts that run until their longest answer ends, against R slots that are refilled;
then, one after the other: the prompts' common beginning run once, the longest answers first, and
the base's answers as drafts. All of them say the same tokens.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import random_checkpoint, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import RunError
from thicket_jax.text import pretrained, prompts, slots
from thicket_jax.text.config import Config, read_config
from thicket_jax.text.decode import decoder, sampling
from thicket_jax.text.model import abstract
from thicket_jax.text.prefixes import shared_prefix

DTYPE, SIGMA, SIGMAS = "float32", 1e-3, (5e-4, 1e-3, 2e-3, 3e-3)
MEAN, SPREAD, MOST, ASKED = 110, 0.5, 256, 200  # tokens of an answer to GSM8K, answers
DRIFT = 0.25  # by how much, in logarithms, an expert's answer is longer or shorter than the base's
FASTER, USEFUL = 2.5, 0.85
CHUNKS, REFILLED = "chunks", "+ refilled"
PREFIX, LENGTHS, DRAFT = "+ common beginning", "+ lengths", "+ draft"


def run(quick: bool, torch_python: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Measures the contenders in turn, and the draft's gain by sigma.

    Args:
      quick: a tiny model, few prompts, few tokens.
      torch_python: not used.
      model: a checkpoint folder; default random weights.

    Returns:
      JSON values: seconds of every contender with all samples, its useful slot-steps, memory;
      useful slot-steps at the lengths of answers to GSM8K; targets.
    """
    del torch_python
    N, R, T, begin, rounds = (10, 4, 8, 66, 2) if quick else (96, 32, 256, 96, 5)
    config, params = _model(quick, model)
    asked = _prompts(config, N, begin)
    config = _with_ends(config, params, asked, R, T)
    experts = tj.population(jax.random.key(0), 2, SIGMA)
    expert = tj.perturb(params, experts[0])
    work = _Work(config, T, R, asked)
    base = work.tokens(work.program(LENGTHS, {}), params, {"expected": _none(work)})
    hints = {LENGTHS: {"expected": work.lengths(base)}, DRAFT: {"draft": base}}
    found: dict[str, Any] = {}
    timed: dict[str, Callable[[], float]] = {}
    programs = {name: work.program(name, hints.get(name, {})) for name in NAMES}
    said = {name: work.tokens(programs[name], expert, hints.get(name, {})) for name in NAMES}
    for name, tokens in said.items():
        if (tokens != said[CHUNKS]).any():
            raise RunError(f"{name} says other tokens than {CHUNKS}; no comparison")
        timed[name] = work.timed(programs[name], expert, hints.get(name, {}))
    samples = timing.alternate(timed, rounds)
    useful = work.useful(work.lengths(said[CHUNKS]), hints)
    total = int(work.flat(work.lengths(said[CHUNKS])).sum())
    for name, values in samples.items():
        seconds = timing.summary(values)
        found[name] = {
            "seconds": seconds,
            "tokens_per_s": total / seconds["median"],
            "ratio": timing.share(values, samples[CHUNKS]),
            "useful": useful.get(name),
            "temporaries": programs[name].memory_analysis().temp_size_in_bytes,
        }
    sigmas, turns = (SIGMAS[:1], 2) if quick else (SIGMAS, 3)
    by_sigma = _by_sigma(work, programs, params, hints, turns, sigmas)
    simulated = {str(rows): _simulated(rows) for rows in (32, 64)}
    targets = [
        timing.target(
            "times as fast as chunks, with all that pays",
            max(row["ratio"]["median"] for row in found.values()),
            FASTER,
            at_least=True,
        )
    ]
    targets += [
        timing.target(
            f"useful slot-steps at the lengths of GSM8K, {rows} slots, lengths known",
            row[LENGTHS],
            USEFUL,
            at_least=True,
        )
        for rows, row in simulated.items()
    ]
    return {
        "model": "random weights" if model is None else config.family,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "dtype": DTYPE,
        "prompts": N,
        "slots": R,
        "prompt_tokens": work.batch["tokens"].shape[-1],
        "common": work.prefix,
        "tokens": T,
        "mean_length": total / N,
        "sigma": SIGMA,
        "rounds": rounds,
        "rows": found,
        "by_sigma": by_sigma,
        "simulated": simulated,
        "targets": targets,
    }


NAMES = (CHUNKS, REFILLED, PREFIX, LENGTHS, DRAFT)


class _Work:
    """The prompts as a batch, and the programs that answer them."""

    def __init__(self, config: Config, T: int, R: int, asked: list[list[int]]) -> None:
        self.config, self.T, self.N, self.asked = config, T, len(asked), asked
        self.R, self.prefix = R, shared_prefix(asked)
        layout = {"rows": R, "chunks": -(-len(asked) // R), "pad_id": 0}
        width = prompts.bucket(max(map(len, asked)))
        self.batch = prompts.lay_out(asked, width=width, **layout) | sampling(0)

    def program(self, name: str, hints: Mapping[str, Any]) -> Any:
        """The compiled program of a contender; it takes (params, batch)."""
        prefix = self.prefix if name not in (CHUNKS, REFILLED) else 0
        decode = decoder(self.config, self.T, DTYPE, prefix=prefix)
        draw = np.int32(0)

        def chunks(params: Any, batch: Any) -> Any:
            lists = {key: batch[key] for key in ("tokens", "start", "row")}
            rest = {key: leaf for key, leaf in batch.items() if key not in lists}

            def one(part: Any) -> Any:
                part = jax.tree.map(lambda x: x[None], part)
                return decode(params, {**rest, **part}, draw)["tokens"][0]

            return jax.lax.map(one, lists)

        def queue(params: Any, batch: Any) -> Any:
            return decode(params, batch, draw)["tokens"]

        run = jax.jit(chunks if name == CHUNKS else queue)
        hints = hints or ({"expected": _none(self)} if name == LENGTHS else {})
        return run.lower(abstract(self.config, DTYPE), {**self.batch, **hints}).compile()

    def tokens(self, program: Any, params: Any, hints: Mapping[str, Any]) -> np.ndarray:
        """What is said, int32 [C, R, T]."""
        return np.asarray(program(params, {**self.batch, **hints}))

    def timed(self, program: Any, params: Any, hints: Mapping[str, Any]) -> Callable[[], float]:
        """The call that is timed."""
        return lambda: timing.seconds(lambda: program(params, {**self.batch, **hints}))

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens of every answer, its end included, int32 [C, R]."""
        stops = np.isin(tokens, self.config.eos_ids)
        return np.where(stops.any(-1), stops.argmax(-1) + 1, self.T).astype(np.int32)

    def flat(self, lengths: np.ndarray) -> np.ndarray:
        """[N], without what fills up the last chunk."""
        return lengths.reshape(-1)[: self.N]

    def useful(self, lengths: np.ndarray, hints: Mapping[str, Any]) -> dict[str, float]:
        """The share of slot-steps that gave a token; with drafts it is not told by lengths."""
        own, asked = self.flat(lengths), np.array([len(prompt) for prompt in self.asked])
        known = self.flat(hints[LENGTHS]["expected"])
        found = {CHUNKS: _chunked(own, self.R)}
        for name, keys in ((REFILLED, (-asked,)), (PREFIX, (-asked,)), (LENGTHS, (-asked, -known))):
            steps = slots.slot_steps(own[np.lexsort(keys)][None], self.R)
            found[name] = float(own.sum() / steps)
        return found


def _none(work: _Work) -> np.ndarray:
    return np.zeros(work.batch["start"].shape, np.int32)


def _chunked(lengths: np.ndarray, rows: int) -> float:
    """The useful share where chunks of R wait for their longest, a token a step."""
    chunks = -(-len(lengths) // rows)
    filled = np.zeros(chunks * rows, int)
    filled[: len(lengths)] = lengths
    return float(lengths.sum() / (rows * filled.reshape(chunks, rows).max(1).sum()))


def _simulated(rows: int) -> dict[str, float]:
    """Useful slot-steps of 16 experts, each alone, at the lengths of answers to GSM8K."""
    draw = np.random.default_rng(0)
    wide = np.sqrt(np.log1p(SPREAD**2))
    base = np.exp(draw.normal(np.log(MEAN) - wide**2 / 2, wide, ASKED))
    drift = np.exp(draw.normal(0, DRIFT, (16, ASKED)))
    every = np.clip(base * drift, 1, MOST).astype(int)
    order = np.argsort(-base, kind="stable")
    steps = {
        CHUNKS: [_chunked(own, rows) for own in every],
        REFILLED: [own.sum() / slots.slot_steps(own[None], rows) for own in every],
        LENGTHS: [own.sum() / slots.slot_steps(own[order][None], rows) for own in every],
    }
    return {name: float(np.mean(values)) for name, values in steps.items()}


def _by_sigma(
    work: _Work,
    programs: Mapping[str, Any],
    params: Any,
    hints: Mapping[str, Any],
    rounds: int,
    sigmas: tuple[float, ...],
) -> list[dict[str, Any]]:
    """How much of the base's answers experts repeat, and what a draft gives, by sigma."""
    found = []
    base = hints[DRAFT]["draft"]
    for sigma in sigmas:
        expert = tj.perturb(params, tj.population(jax.random.key(1), 2, sigma)[0])
        tokens = work.tokens(programs[DRAFT], expert, hints[DRAFT])
        if (tokens != work.tokens(programs[LENGTHS], expert, hints[LENGTHS])).any():
            raise RunError(f"a draft changes tokens at sigma {sigma:g}; no comparison")
        own, same = work.flat(work.lengths(tokens)), tokens == base
        begun = work.flat(np.where(same.all(-1), work.T, same.argmin(-1)))
        timed = {name: work.timed(programs[name], expert, hints[name]) for name in (LENGTHS, DRAFT)}
        samples = timing.alternate(timed, rounds)
        found.append(
            {
                "sigma": sigma,
                "mean_length": float(own.mean()),
                "begun_alike": float(np.minimum(begun, own).mean()),
                "equal": float(work.flat(same.all(-1)).mean()),
                "gain": timing.share(samples[DRAFT], samples[LENGTHS]),
            }
        )
    return found


def _model(quick: bool, model: str | None) -> tuple[Config, Any]:
    if model is not None:
        return read_config(model), pretrained.load(model, DTYPE).params
    with tempfile.TemporaryDirectory() as folder:
        shape = "tiny" if quick else "small"
        config = random_checkpoint.write_config(pathlib.Path(folder), shape, DTYPE)
    if quick:
        config = dataclasses.replace(
            config, num_layers=1, ropes=config.ropes[:1], windows=config.windows[:1]
        )
    return config, random_checkpoint.random_params(config, DTYPE)


def _prompts(config: Config, count: int, begin: int) -> list[list[int]]:
    """Prompts of 8 to 40 tokens behind a beginning that all have."""
    draw = np.random.default_rng(0)
    common = draw.integers(3, config.vocab_size, begin).tolist()
    lengths = draw.integers(8, 41, count)
    return [common + draw.integers(3, config.vocab_size, n).tolist() for n in lengths]


def _with_ends(config: Config, params: Any, asked: list[list[int]], R: int, T: int) -> Config:
    """Ends answers at the token for which the base's are nearest to GSM8K's share of the most."""
    endless = dataclasses.replace(config, eos_ids=())
    work = _Work(endless, T, R, asked)
    tokens = work.tokens(work.program(PREFIX, {}), params, {}).reshape(-1, T)[: len(asked)]
    means = []
    for token in range(config.vocab_size):
        here = tokens == token
        means.append(np.where(here.any(-1), here.argmax(-1) + 1, T).mean())
    end = int(np.abs(np.asarray(means) - T * MEAN / MOST).argmin())
    return dataclasses.replace(config, eos_ids=(end,))


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [
        [
            name,
            number(row["tokens_per_s"]),
            number(1e3 * row["seconds"]["median"]),
            number(row["ratio"]["median"]),
            f"{number(row['ratio']['min'])} to {number(row['ratio']['max'])}",
            "" if row["useful"] is None else f"{100 * row['useful']:.0f} %",
            number(row["temporaries"] / 1e6),
        ]
        for name, row in result["rows"].items()
    ]
    head = ["decoding", "tokens/s", "ms, median", "times as fast as chunks", "spread"]
    head += ["useful slot-steps", "temporaries, MB"]
    sigmas = [
        [
            f"{row['sigma']:g}",
            f"{row['begun_alike']:.0f} of {row['mean_length']:.0f}",
            f"{100 * row['equal']:.0f} %",
            number(row["gain"]["median"]),
        ]
        for row in result["by_sigma"]
    ]
    lengths = [
        [rows, *(f"{100 * row[name]:.0f} %" for name in (CHUNKS, REFILLED, LENGTHS))]
        for rows, row in result["simulated"].items()
    ]
    return "\n\n".join(
        [
            f"{result['model']} ({result['parameters']:,} parameters, {result['dtype']}), one "
            f"expert at sigma {result['sigma']:g}: {result['prompts']} prompts of at most "
            f"{result['prompt_tokens']} tokens, {result['common']} of them common to all, "
            f"{result['slots']} side by side; answers of {result['mean_length']:.0f} tokens in the "
            f"mean and {result['tokens']} at most, which a token ends that was chosen for it; "
            f"{result['rounds']} alternated rounds. All say the same tokens.",
            markdown_table(head, rows),
            "The base's answers as drafts, beside the same without, by sigma:",
            markdown_table(
                ["sigma", "tokens begun alike", "answers equal", "times as fast"], sigmas
            ),
            f"Useful slot-steps by the queue's own rules at {ASKED} answers of lognormal lengths, "
            f"{MEAN} tokens in the mean, {100 * SPREAD:.0f} % spread, {MOST} at most; an expert's "
            f"differ from the base's, by which the prompts are put in order, by "
            f"{100 * DRIFT:.0f} %; 16 experts, each alone:",
            markdown_table(["slots", CHUNKS, REFILLED, LENGTHS], lengths),
        ]
    )
