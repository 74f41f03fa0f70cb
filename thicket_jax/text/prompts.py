"""Prompts: what is asked, as token ids, in left-padded batches.

Shapes: n experts, B items, C chunks that are decoded one after another, R rows side by side, P
prompt tokens.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.scoring.layouts import Layout
from thicket_jax.text.tokenizer import Tokenizer, open_tokenizer

Messages = Sequence[Mapping[str, str]]
"""A conversation: `role` and `content` of each message."""

Shot = tuple[str | Messages, str]
"""A worked example: what is asked, and the answer."""

LABELS = ("Question: ", "\n\nAnswer:")
"""What stands around a question where worked examples are plain text."""

__all__ = [
    "LABELS",
    "LAYOUT",
    "Messages",
    "Shot",
    "Tokenizer",
    "around",
    "bucket",
    "check_lengths",
    "lay_out",
    "messages",
    "open_tokenizer",
    "question",
    "render",
    "unlay",
]


def render(
    tokenizer: Tokenizer,
    prompt: str | Messages,
    system: str | None = None,
    chat: bool | None = None,
    *,
    shots: Sequence[Shot] = (),
    labels: tuple[str, str] = LABELS,
    arguments: Mapping[str, Any] | None = None,
) -> list[int]:
    """Returns the tokens of one prompt.

    Args:
      tokenizer: the checkpoint's.
      prompt: what the task asks: a text, or the messages of a conversation, for the template.
      system: an instruction before it, if any: the system message of a chat, or else a paragraph.
      chat: whether the chat template is applied; None: it is if the tokenizer has one.
      shots: worked examples before it: as turns of a chat, or else as blocks of text.
      labels: what stands before and behind each question in blocks of text.
      arguments: passed to the chat template.

    Raises:
      ArgumentError: `chat` is True and there is no template.
      DataError: the template fails, or there is none for messages.
    """
    template = chat or (chat is None and tokenizer.has_chat_template)
    if template:
        turns = _turns(prompt, system, shots)
        used = {"--system": turns[0]["role"] == "system" and system, "--few-shot": shots}
        options = " and ".join(name for name, value in used.items() if value)
        return tokenizer.chat(turns, arguments, options)
    asked = [_plain(tokenizer, each, chat) for each in (*(shot[0] for shot in shots), prompt)]
    blocks = [system] if system else []
    if shots:
        before, behind = labels
        asked = [f"{before}{each}{behind}" for each in asked]
        told = [answer.strip() for _, answer in shots]
        blocks += [_joined(*pair) for pair in zip(asked, told, strict=False)]
    return tokenizer.encode("\n\n".join([*blocks, asked[-1]]))


def _turns(prompt: str | Messages, system: str | None, shots: Sequence[Shot]) -> list[Any]:
    """A conversation: the system message, worked examples, and what is asked."""
    if not isinstance(prompt, str) and prompt[0]["role"] == "system":
        if system:
            raise DataError(
                "a list of messages has a system message of its own; leave --system out"
            )
        first, asked = [prompt[0]], prompt[1:]
    else:
        first = [{"role": "system", "content": system}] if system else []
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    turns = []
    for question_, answer in shots:
        told = [{"role": "user", "content": question_}]
        if not isinstance(question_, str):  # a system message belongs to its own conversation
            told = [dict(message) for message in question_ if message["role"] != "system"]
        turns += [*told, {"role": "assistant", "content": answer.strip()}]
    return [*first, *turns, *asked]


def _plain(tokenizer: Tokenizer, prompt: str | Messages, chat: bool | None) -> str:
    if isinstance(prompt, str):
        return prompt
    why = "--no-chat" if chat is False else f"no chat template in {tokenizer.folder}"
    raise DataError(f"a prompt is a list of messages, and there is {why}; give plain text")


def _joined(asked: str, answer: str) -> str:
    """A question and its answer, with a space between them where nothing else is."""
    return f"{asked}{'' if asked[-1:].isspace() else ' '}{answer}"


def question(value: Any, name: str) -> str | list[dict[str, str]]:
    """Returns what a value of a data file asks: a text (numbers are), or a conversation's messages.

    Args:
      value: as the file has it.
      name: what an error calls it, such as its column.

    Raises:
      DataError: it is neither, or a conversation that no model can go on with; see `messages`.

    Example:
      >>> question(12, "question"), question([{"role": "user", "content": "hi"}], "question")
      ('12', [{'role': 'user', 'content': 'hi'}])
    """
    found = messages(value, name)
    if found is not None:
        return found
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"its {name} {value!r:.80} is neither text nor a list of messages")
    return str(value)


def messages(value: Any, name: str) -> list[dict[str, str]] | None:
    """Returns the messages of a conversation, or None for a value that is none.

    A conversation is a list of messages, each with `role` and `content`: a system message or none,
    then user and assistant in turn, the user last. A content is text, or a list of parts of
    `{"type": "text", "text": ...}`, which are put below each other. What else a message has is not
    read.

    Raises:
      DataError: a list of objects, or the text of one, that is not such a conversation.
    """
    if isinstance(value, str):
        if _is_written_out(value):
            raise DataError(
                f"its {name} is a list of messages written as text; give the list itself, in JSON "
                "or parquet"
            )
        return None
    if isinstance(value, dict):
        raise DataError(f"its {name} is an object, neither text nor a list of messages")
    if not (isinstance(value, list) and any(isinstance(each, dict) for each in value)):
        return None
    found = []
    for number, message in enumerate(value, 1):
        where = f"message {number} of its {name}"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise DataError(
                f"its {name} is neither text nor a list of messages: {where} has no role and "
                f"content but is {message!r:.60}"
            )
        found.append({"role": message["role"], "content": _content(message["content"], where)})
        if message["role"] != _next_role(found[:-1], message["role"]):
            raise DataError(
                f"{where} has the role {message['role']!r:.40}; a conversation has a system "
                "message or none, then user and assistant in turn"
            )
    if found[-1]["role"] != "user":
        raise DataError(
            f"its {name} ends with a message of the {found[-1]['role']}; the last one must be the "
            "user's, which is what is asked"
        )
    return found


def _next_role(before: Sequence[Mapping[str, str]], role: Any) -> str:
    """The role that the next message must have, of two that it may have the given one."""
    if not before and role == "system":
        return "system"
    return "assistant" if before and before[-1]["role"] == "user" else "user"


def _content(value: Any, where: str) -> str:
    """The text of a message, whether it is one or a list of parts."""
    parts = value if isinstance(value, list) else [{"type": "text", "text": value}]
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise DataError(f"{where} has a part that is no text but {part!r:.60}; leave it out")
        if not isinstance(part.get("text"), str):
            raise DataError(f"{where} has the content {part.get('text')!r:.60}, which is no text")
        texts.append(part["text"])
    text = "\n".join(texts)
    if not text.strip():
        raise DataError(f"{where} is empty; give it a text")
    return text


def _is_written_out(text: str) -> bool:
    """Whether a text is a list of messages as JSON or Python writes it."""
    if not (text.lstrip()[:1] == "[" and "role" in text and "content" in text):
        return False
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return bool(value) and all(isinstance(each, dict) and "role" in each for each in value)
    return False


def around(prompt: str | Messages, before: str = "", after: str = "") -> str | Messages:
    """Returns a prompt with text before and after it: of messages, around the last one's.

    Example:
      >>> around("2 + 2?", after=" Be brief."), around([{"role": "user", "content": "?"}], "a")
      ('2 + 2? Be brief.', [{'role': 'user', 'content': 'a?'}])
    """
    if isinstance(prompt, str):
        return f"{before}{prompt.strip()}{after}"
    *earlier, last = prompt
    return [*earlier, {**last, "content": f"{before}{last['content'].strip()}{after}"}]


def check_lengths(
    prompts: Sequence[Sequence[int]], max_tokens: int, max_positions: int, shots: int = 0
) -> None:
    """Checks that every prompt has tokens, and room for `max_tokens` more after them.

    Args:
      prompts: token ids, item by item.
      max_tokens: number of tokens that are generated at most, T.
      max_positions: number of positions that the model has.
      shots: number of worked examples in every prompt, for the error.

    Raises:
      DataError: the longest prompt does not fit, or one is empty.
    """
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise DataError(f"item {lengths.index(0)} (from 0) has an empty prompt; give it a text")
    longest = max(lengths, default=0)
    if lengths and longest + max_tokens > max_positions:
        over = sum(length + max_tokens > max_positions for length in lengths)
        mend = "a smaller --max-tokens, " if max_tokens < max_positions else ""
        mend += "a smaller --few-shot, " if shots else ""
        raise DataError(
            f"item {lengths.index(longest)} (from 0) has a prompt of {longest} tokens, and with "
            f"--max-tokens {max_tokens} that is over the model's {max_positions} positions "
            f"({over} of {len(lengths)} items are); use {mend}shorter items, or a longer model"
        )


def bucket(length: int, multiple: int = 8) -> int:
    """Rounds a prompt length up to one of few widths, since every width is compiled for itself.

    Widths are multiples of `multiple` up to 16 times it, then of 4 times it up to 64 times it,
    then of 16 times it: 8, 16, ... 128, 160, ... 512, 640, ... for 8.

    >>> [bucket(n) for n in (1, 8, 9, 128, 129, 513)]
    [8, 8, 16, 128, 160, 640]
    """
    step = multiple
    if length > 16 * multiple:
        step = 4 * multiple if length <= 64 * multiple else 16 * multiple
    return max(1, -(-length // step)) * step


def lay_out(
    prompts: Sequence[Sequence[int]],
    *,
    rows: int,
    chunks: int,
    width: int,
    pad_id: int,
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Lays prompts out as chunks of rows, in order, each padded on its left.

    Args:
      prompts: token ids of at most C*R items.
      rows: R.
      chunks: C.
      width: P, at least the longest prompt; see `bucket`.
      pad_id: what stands where there is no token.
      first: number of the first prompt's item.

    Returns:
      `tokens` int32 [C, R, P]; `start` int32 [C, R], the index of a row's first token, P for a
      filler row; `row` int32 [C, R], the item's number, -1 for a filler row.

    Raises:
      ArgumentError: there are too many prompts, or one is empty or longer than `width`.
    """
    if len(prompts) > chunks * rows:
        raise ArgumentError(
            f"{len(prompts)} prompts do not fit chunks={chunks} of rows={rows}; make more chunks"
        )
    tokens = np.full((chunks * rows, width), pad_id, np.int32)
    start = np.full(chunks * rows, width, np.int32)
    row = np.full(chunks * rows, -1, np.int32)
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= width:
            raise ArgumentError(
                f"prompt {first + index} has {len(prompt)} tokens; they must be 1 to width={width}"
            )
        start[index] = width - len(prompt)
        tokens[index, start[index] :] = prompt
        row[index] = first + index
    return {
        "tokens": tokens.reshape(chunks, rows, width),
        "start": start.reshape(chunks, rows),
        "row": row.reshape(chunks, rows),
    }


def unlay(outputs: np.ndarray, count: int) -> np.ndarray:
    """Returns [n, count, ...] of outputs [n, C, R, ...]: the items in order, fillers left out."""
    chunks, rows = outputs.shape[1:3]
    return outputs.reshape(outputs.shape[0], chunks * rows, *outputs.shape[3:])[:, :count]


def _count(batch: Mapping[str, Any]) -> int:
    return int((np.asarray(batch["row"]) >= 0).sum())


def _take(batch: Mapping[str, Any], indices: np.ndarray) -> dict[str, Any]:
    """One chunk of the items at `indices`; what is no prompt is passed on as it is."""
    taken = {}
    for name in ("tokens", "start", "row", *(name for name in HINTS if name in batch)):
        leaf = np.asarray(batch[name])
        taken[name] = leaf.reshape(-1, *leaf.shape[2:])[indices][None]
    return {**batch, **taken}


HINTS = ("draft", "expected")
"""Entries of a batch that say beforehand what answers may be like; see `decode.Batch`."""

LAYOUT = Layout(_count, _take, axes=2)
"""How items lie in what `lay_out` makes, for who takes some of them."""
