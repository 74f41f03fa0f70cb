"""What the language-model tasks share: a checkpoint, prompts, decoding and grading → a task.

A task says what its rows are, what is asked and how an answer is graded (`asking.Spec`); it is put
together here. Shapes: B items, C chunks, R rows side by side, P prompt tokens.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from thicket_jax.ensembles.combine import combine_rules
from thicket_jax.errors import ArgumentError
from thicket_jax.experts.leaves import check_useful_rank
from thicket_jax.mapping.devices import memory_bytes
from thicket_jax.scoring.metrics import metric
from thicket_jax.search.problem import Answering, Problem
from thicket_jax.tasks import task
from thicket_jax.tasks.language.asking import Spec
from thicket_jax.tasks.language.hinting import hints
from thicket_jax.tasks.language.prompting import ask
from thicket_jax.tasks.language.reader import Reader, items_digest
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text import pretrained, prompts
from thicket_jax.text.cache import cache_bytes
from thicket_jax.text.config import read_config
from thicket_jax.text.data.splits import Split, open_split
from thicket_jax.text.decode import decoder, sampling
from thicket_jax.text.grading import Graders
from thicket_jax.text.model import abstract
from thicket_jax.text.prefixes import shared_prefix
from thicket_jax.text.pretrained import Pretrained

_CPU_CACHE_BYTES = 2**24  # of keys and values side by side; more rows only leave the cache
_ACCELERATOR_SHARE = 0.25  # of its memory for one expert's keys and values


def build(options: Options, spec: Spec, split: Split, tell: task.Tell = task.quiet) -> task.Task:
    """Loads the model, lays the prompts out and starts the graders.

    Raises:
      DataError: the checkpoint, the tokenizer or the data cannot be used; one line says why.
      ArgumentError: an option that cannot work.
    """
    config = read_config(options.model)
    dtype = config.dtype if options.precision == "auto" else options.precision
    check_useful_rank(abstract(config, dtype), options.law())
    tokenizer = prompts.open_tokenizer(options.model)
    # Before the weights are read, which may take minutes.
    asked = ask(options, spec, split, tokenizer, config)
    config = dataclasses.replace(config, eos_ids=(*asked.ends, *asked.stopping))
    tell(f"loading the weights of {pathlib.Path(options.model).name}")
    model = pretrained.load(options.model, options.precision)
    model = dataclasses.replace(model, config=config)
    width = prompts.bucket(max(map(len, asked.encoded)))
    count = len(split.train)
    side_by_side = _rows(options, model, width, count)
    layout = {"rows": side_by_side, "chunks": -(-count // side_by_side), "width": width}
    pad = tokenizer.pad_id if tokenizer.pad_id < config.vocab_size else 0  # what it is is masked
    batches = _batches(asked.encoded, count, layout, pad)
    prefix = shared_prefix(asked.encoded)
    graded = {"items": items_digest(spec.grader, asked.items, asked.endings)}
    scored = {**graded, **sampling(options.seed, options.temperature)}
    greedy = {**graded, **sampling(options.seed)}
    drawn = {
        **graded,
        **sampling(options.seed, options.sample_temperature, options.sample_top_p),
    }
    sizes = [count] + [int((batch["row"] >= 0).sum()) for batch in batches[1:]]
    decode = decoder(config, options.max_tokens, model.dtype, prefix=prefix)
    known, unknown = hints(options, decode, model, {**batches[0], **scored}, tell)
    greedy, drawn = {**greedy, **unknown}, {**drawn, **unknown}
    graders = Graders(
        spec.grader,
        asked.items,
        workers=options.grade_workers or None,
        timeout=options.grade_seconds,
    )
    read = Reader(graders, tokenizer, asked.ends, asked.stops, tuple(sizes))
    problem = Problem(
        score_fn=decode,
        params=model.params,
        train={**batches[0], **scored, **known},
        metric=metric("accuracy"),
        combines=combine_rules("majority_vote", "weighted_vote"),
        grade=lambda outputs: read(0, outputs),
        with_id=True,
        answering=Answering(
            pieces=tuple({**batch, **greedy} for batch in batches[1:]),
            sampled=tuple({**batch, **drawn} for batch in batches[1:]),
            read=lambda piece, outputs: read(piece + 1, outputs),
            classes=graders.classes,
            sizes=tuple(sizes[1:]),
        ),
        layout=prompts.LAYOUT,
        hints=tuple(known),
    )
    return task.Task(
        name=spec.name,
        model=model.description,
        problem=problem,
        notes=(*spec.notes, *_sampled(options), *split.notes),
        provenance={
            "data": split.provenance,
            "grader": spec.grader,
            "chat_template": asked.template,
            "prompt_tokens": width,
            **({"shared_prefix": prefix} if prefix else {}),
            "decoded_side_by_side": side_by_side,
            "sampling": {
                "temperature": options.sample_temperature,
                "top_p": options.sample_top_p,
            },
            "asked": asked.about,
        },
        close=graders.close,
    )


def _sampled(options: Options) -> tuple[str, ...]:
    """What must be said where training and test answers are not made alike."""
    if not options.temperature:
        return ()
    return (
        f"Experts were selected by answers sampled at temperature {options.temperature:g}; figures "
        "on training items are of such answers, the base's too, and those on test items are of "
        "greedy ones.",
    )


def read_split(options: Options, needed: Sequence[Any], **rules: Any) -> Split:
    """Reads the data that --data and --test-data name; `rules` are those of `open_split`.

    Raises:
      ArgumentError: no data was named.
      DataError: it is not what the task reads.
    """
    if options.data is None:
        columns = ", ".join(" or ".join((c,) if isinstance(c, str) else c) for c in needed)
        raise ArgumentError(
            f"--data is missing; give a file (JSONL, JSON, CSV, parquet) with {columns}, or a "
            "folder with a train and a test file"
        )
    assert options.test_items is not None
    return open_split(
        options.data,
        options.test_data,
        needed=needed,
        train_items=options.train_items,
        test_items=options.test_items,
        seed=options.seed,
        allow_test_selection=options.allow_test_selection,
        **rules,
    )


def save(options: Options, params: Any, to: pathlib.Path, notes: Mapping[str, Any]) -> pathlib.Path:
    """Writes parameters as a checkpoint folder that transformers opens."""
    return pretrained.save(options.model, to, params, notes)


def base_params(options: Options) -> Any:
    """Returns the checkpoint's parameters alone, which is all that an export needs."""
    return pretrained.load(options.model, options.precision).params


def _rows(options: Options, model: Pretrained, width: int, count: int) -> int:
    """Chooses how many prompts are decoded side by side, alike on every machine of one kind."""
    if options.rows:
        return min(options.rows, count)
    device = jax.local_devices()[0]
    room = _CPU_CACHE_BYTES
    if device.platform != "cpu":
        room = int(memory_bytes(device) * _ACCELERATOR_SHARE)
    one = cache_bytes(model.config, 1, width + options.max_tokens, model.dtype)
    most = max(32 if device.platform == "cpu" else 1, room // one)
    chunks = -(-count // most)
    return -(-count // chunks)


def _batches(
    encoded: Sequence[Sequence[int]], count: int, layout: Mapping[str, int], pad: int
) -> list[dict[str, np.ndarray]]:
    """Lays out the training prompts, then the test prompts, in batches of one shape."""
    size = layout["rows"] * layout["chunks"]
    edges = [0, count, *range(count + size, len(encoded), size), len(encoded)]
    return [
        prompts.lay_out(encoded[begin:end], pad_id=pad, first=begin, **layout)
        for begin, end in itertools.pairwise(edges)
    ]
