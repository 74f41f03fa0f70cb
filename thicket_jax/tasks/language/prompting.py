"""How it is asked: what a task asks → tokens, and the tokens and texts that end an answer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.tasks.language import asking, shots
from thicket_jax.tasks.language.settings import Options
from thicket_jax.text import prompts
from thicket_jax.text.config import Config
from thicket_jax.text.data.splits import Split
from thicket_jax.text.templates import arguments
from thicket_jax.text.tokenizer import Tokenizer

_STOPPING = 16  # tokens that have a stop string in them: each is a comparison more in every step
_SHOWN = 20_000  # characters of a prompt that a record keeps


@dataclasses.dataclass(frozen=True)
class Asked:
    """All prompts of a run, those of the training items first, and how answers end.

    Attributes:
      encoded: token ids, item by item.
      items: what the grader reads of each.
      template: whether the chat template was applied.
      ends: the end tokens.
      stops: an answer ends before any of these texts.
      stopping: tokens with a stop string inside: a row that has one needs no further step.
      endings: what ends an answer beside the end tokens of config and tokenizer, as text.
      about: JSON values for a record and its report, name → value in words.
    """

    encoded: list[list[int]]
    items: list[dict[str, Any]]
    template: bool
    ends: tuple[int, ...]
    stops: tuple[str, ...]
    stopping: tuple[int, ...]
    endings: tuple[str, ...]
    about: dict[str, Any]


def ask(
    options: Options, spec: asking.Spec, split: Split, tokenizer: Tokenizer, config: Config
) -> Asked:
    """Writes the prompts as the options say.

    Raises:
      ArgumentError: an option that nothing reads, or that cannot work with this tokenizer.
      DataError: a row cannot be asked, a prompt does not fit the model, or the tokenizer is
        another model's.
    """
    template = bool(options.chat or (options.chat is None and tokenizer.has_chat_template))
    _check_read(options, tokenizer, template)
    given = arguments(options.template)
    examples = shots.choose(options, spec, split)
    asked, items = asking.read([*split.train, *split.test], len(split.train), spec, options)
    encoded = [
        prompts.render(
            tokenizer,
            each,
            options.system,
            options.chat,
            shots=examples,
            labels=spec.labels,
            arguments=given,
        )
        for each in asked
    ]
    stops = options.stops()
    _check_examples(examples, stops)
    _check_fit(options, config, encoded)
    turn = tokenizer.end_of_turn(given) if template else ()
    special = tokenizer.special()  # which no text has, so that a stop string may be one
    named = (special[stop] for stop in stops if stop in special)
    known = (*config.eos_ids, *tokenizer.eos_ids)
    ends = tuple(dict.fromkeys((*known, *turn, *named)))
    if any(end >= config.vocab_size for end in ends):
        raise DataError(
            f"{options.model}: its tokenizer has the end token {max(ends)}, but config.json has "
            f"{config.vocab_size} tokens; are they of one checkpoint?"
        )
    stopping = tuple(
        token
        for token in tokenizer.containing(stops, _STOPPING)
        if token < config.vocab_size and token not in ends
    )
    about = {
        "chat template": "applied" if template else "none; prompts are plain text",
        **({"template arguments": given} if given else {}),
        **({"system message": options.system} if options.system else {}),
        "worked examples": len(examples),
        "end tokens": [tokenizer.written([end]) or str(end) for end in ends],
        "stop strings": list(stops),
        "most tokens of an answer": options.max_tokens,
        "answers to train items": _decoding(options.temperature),
        "answers to test items": _decoding(0),
        "prompt": tokenizer.written(encoded[0])[:_SHOWN],
    }
    endings = (*stops, *(tokenizer.written([end]) for end in ends if end not in known))
    return Asked(encoded, items, template, ends, stops, stopping, endings, about)


def _decoding(temperature: float) -> str:
    return f"sampled at temperature {temperature:g}" if temperature else "greedy"


def _check_read(options: Options, tokenizer: Tokenizer, template: bool) -> None:
    """Raises `ArgumentError` where no chat template reads what is for one."""
    if options.template and not template:
        raise ArgumentError(
            f"--template belongs to a chat template, and the tokenizer in {tokenizer.folder} has "
            "none; leave it out"
        )
    given = arguments(options.template)
    tokenizer.check_arguments(given)
    if not (template and options.system):
        return
    systems = (options.system, f"{options.system} {options.system}")
    one, other = (prompts.render(tokenizer, "1", system, arguments=given) for system in systems)
    if one == other:
        raise ArgumentError(
            f"--system: the chat template in {tokenizer.folder} reads no system message; put it "
            "into the prompt, or say --no-chat"
        )


def _check_examples(examples: Sequence[prompts.Shot], stops: Sequence[str]) -> None:
    """Raises `ArgumentError` where an answer like those that are shown would be cut."""
    for _, answer in examples:
        for stop in stops:
            if stop in answer.strip():
                raise ArgumentError(
                    f"the stop string {stop!r} would cut answers like the worked example "
                    f"{answer!r:.60}; leave out --few-shot or the stop string (--stop, or say "
                    "--no-task-stops)"
                )


def _check_fit(options: Options, config: Config, encoded: Sequence[Sequence[int]]) -> None:
    """Raises `DataError` unless the model has the prompts' tokens, and room for them.

    Args:
      options: the task's.
      config: the model's.
      encoded: token ids, item by item.
    """
    limits = options.max_tokens, config.max_positions
    prompts.check_lengths(encoded, *limits, options.few_shot)
    largest = max(map(max, encoded))
    if largest >= config.vocab_size:
        raise DataError(
            f"{options.model}: its tokenizer gives token {largest}, but config.json has "
            f"{config.vocab_size} tokens; are they of one checkpoint?"
        )
