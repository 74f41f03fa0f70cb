"""A checkpoint's tokenizer and chat template, through transformers and without PyTorch."""

import contextlib
import dataclasses
import datetime
import logging
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import ArgumentError, DataError
from thicket_jax.text import templates

TODAY = datetime.date(2024, 7, 26)
"""The date that a chat template gets when it asks for today's: a prompt is the same on any day."""

_MARK = "thicket"  # an answer that stands in no template
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A checkpoint's tokenizer, without its model; made by `open_tokenizer`.

    Attributes:
      folder: where it was read from.
      size: number of tokens it knows: every id is below.
      pad_id: its padding token, or else its end token, or else 0.
      eos_ids: its end token, if it has one. Those that end a generation are the model config's.
      has_chat_template: whether `chat` works.
    """

    folder: str
    size: int
    pad_id: int
    eos_ids: tuple[int, ...]
    has_chat_template: bool
    _inner: Any = dataclasses.field(repr=False)
    _before: tuple[int, ...] = dataclasses.field(repr=False)  # what it puts before a plain text

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a plain text, with those that the tokenizer itself puts before it.

        What it puts after it, such as an end token, is left out: the text is there to be gone on
        with.
        """
        tokens = list(self._inner(text, verbose=False)["input_ids"])
        plain = list(self._inner(text, verbose=False, add_special_tokens=False)["input_ids"])
        end = len(self._before) + len(plain)
        return tokens[:end] if tokens[:end] == [*self._before, *plain] else tokens

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        arguments: Mapping[str, Any] | None = None,
        options: str = "",
    ) -> list[int]:
        """Returns the tokens of a conversation up to where the assistant's answer begins.

        Args:
          messages: `role` (system, user, assistant) and `content` of each.
          arguments: passed to the template, beside what every template is given.
          options: those that made messages which a template may not take, for its error.

        Raises:
          ArgumentError: the tokenizer has no chat template.
          DataError: the template fails on these messages.
        """
        tokens = self._apply(
            messages,
            arguments or {},
            options,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            tokenizer_kwargs={"verbose": False},
        )
        return list(tokens)

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Raises `ArgumentError` unless the chat template reads every one of these."""
        if not arguments:
            return
        if not self.has_chat_template:
            raise ArgumentError(
                f"--template {next(iter(arguments))}: the tokenizer in {self.folder} has no chat "
                "template; leave it out"
            )
        try:
            template = self._inner.get_chat_template()
        except ValueError as error:  # templates by name, and none is the default
            raise self._failed(error) from error
        try:
            taken = self._inner.special_tokens_map
            templates.check_arguments(arguments, template, taken, self.folder)
        except ImportError as error:
            raise _needs("jinja2 3.1.6 or newer", self.folder, "jinja2>=3.1.6") from error

    def end_of_turn(self, arguments: Mapping[str, Any] | None = None) -> tuple[int, ...]:
        """Returns the special token that the chat template puts behind an assistant's answer.

        A model that was trained with the template ends its answers so, whether or not its config
        says it: `<|im_end|>`, `<|eot_id|>`, `<end_of_turn>`. () where there is no template, or
        what it puts there is no special token.
        """
        if not self.has_chat_template:
            return ()
        turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": _MARK}]
        try:
            text = self._apply(turns, arguments or {}, "", tokenize=False)
        except DataError:  # a template of single questions
            return ()
        behind = text.rpartition(_MARK)[2].lstrip() if _MARK in text else ""
        special = self.special()
        found = [word for word in special if behind.startswith(word)]
        return (special[max(found, key=len)],) if found else ()

    def containing(self, texts: Sequence[str], most: int) -> tuple[int, ...]:
        """Returns tokens that have one of these texts inside them, whatever stands before.

        At most so many, the first in the vocabulary, which a tokenizer met most often. Not all
        that there are: where the tokenizer would write a text in more than one way, those of its
        own way.
        """
        vocabulary = self._inner.get_vocab()
        found = set()
        for text in texts:
            ids = self._inner(text, verbose=False, add_special_tokens=False)["input_ids"]
            spelled = "".join(self._inner.convert_ids_to_tokens(ids))
            for spelling in {spelled, spelled.lstrip("▁")} - {""}:
                near = [token for word, token in vocabulary.items() if spelling in word]
                alone = self.decode_many([[token] for token in near])
                found |= {token for token, said in zip(near, alone, strict=True) if text in said}
        return tuple(sorted(found)[:most])

    def written(self, ids: Sequence[int]) -> str:
        """Returns the text of some tokens, special tokens as they are written."""
        return str(self._inner.decode(list(ids), skip_special_tokens=False))

    def special(self) -> dict[str, int]:
        """Returns special tokens, as they are written → their ids; no text has them."""
        added = self._inner.added_tokens_decoder.items()
        known = {token.content: int(number) for number, token in added if token.special}
        named = zip(self._inner.all_special_tokens, self._inner.all_special_ids, strict=True)
        return known | {word: int(token) for word, token in named}

    def _apply(
        self,
        messages: Sequence[Mapping[str, str]],
        arguments: Mapping[str, Any],
        options: str,
        **how: Any,
    ) -> Any:
        """What transformers makes of a conversation; its errors as one line."""
        if not self.has_chat_template:
            raise ArgumentError(
                f"--chat: the tokenizer in {self.folder} has no chat template; leave --chat out, "
                "or say --no-chat, and prompts are plain text"
            )
        conversation = [dict(message) for message in messages]
        try:
            return self._inner.apply_chat_template(conversation, **how, **arguments)
        except ImportError as error:
            raise _needs("jinja2 3.1.6 or newer", self.folder, "jinja2>=3.1.6") from error
        except Exception as error:  # whatever a template raises: its texts are free
            raise self._failed(error, options) from error

    def _failed(self, error: BaseException, options: str = "") -> DataError:
        mend = f"leave {options} out, or " if options else ""
        return DataError(
            f"the chat template in {self.folder} fails: {_first_line(error)}; {mend}say --no-chat "
            "for plain text"
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some tokens, special tokens left out."""
        return self.decode_many([ids])[0]

    def decode_many(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of every row of tokens, special tokens left out."""
        plain = [[int(token) for token in row] for row in rows]
        return list(self._inner.batch_decode(plain, skip_special_tokens=True)) if plain else []


def open_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """Opens the tokenizer of a checkpoint folder with transformers; code in it is never run.

    Raises:
      DataError: the folder has no tokenizer files, or transformers cannot read them.
    """
    place = pathlib.Path(folder).expanduser()
    if not any((place / name).is_file() for name in _FILES):
        raise DataError(
            f"{place} has no tokenizer (none of {', '.join(_FILES)}); copy the checkpoint's "
            "tokenizer files there"
        )
    try:
        with _without_advice():
            from transformers import AutoTokenizer
    except ImportError as error:
        raise _needs("transformers", str(place)) from error
    try:
        inner = AutoTokenizer.from_pretrained(
            str(place), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # readers of each format raise what they like
        raise DataError(
            f"the tokenizer in {place} cannot be read: {_first_line(error)}; a checkpoint's "
            "tokenizer.json and tokenizer_config.json are enough"
        ) from error
    if isinstance(inner.chat_template, str):
        inner.chat_template = _dated(inner.chat_template)
    end = inner.eos_token_id
    known = [token for token in (inner.pad_token_id, end, 0) if token is not None]
    return Tokenizer(
        folder=str(place),
        size=len(inner),
        pad_id=int(known[0]),
        eos_ids=() if end is None else (int(end),),
        has_chat_template=bool(inner.chat_template),
        _inner=inner,
        _before=_before(inner),
    )


def _before(inner: Any) -> tuple[int, ...]:
    """The tokens that a tokenizer puts before any text: those before a text's own."""
    for probe in ("a", "1", "the"):
        whole = list(inner(probe, verbose=False)["input_ids"])
        own = list(inner(probe, verbose=False, add_special_tokens=False)["input_ids"])
        for start in range(len(whole) - len(own) + 1):
            if own and whole[start : start + len(own)] == own:
                return tuple(whole[:start])
    return ()


def _dated(template: str) -> str:
    """A template whose calls for today's date are the date TODAY.

    >>> _dated("{% set today = strftime_now('%d %b %Y') %}")
    "{% set today = '26 Jul 2024' %}"
    """
    call = r"strftime_now\(\s*(['\"])(.*?)\1\s*\)"
    return re.sub(call, lambda found: repr(TODAY.strftime(found[2])), template)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """transformers advises to install PyTorch when first imported; its tokenizers need none."""
    logger = logging.getLogger("transformers")
    before = logger.disabled
    logger.disabled = "transformers" not in sys.modules
    try:
        yield
    finally:
        logger.disabled = before


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _needs(library: str, folder: str, package: str = "thicket-jax[text]") -> DataError:
    return DataError(f'the tokenizer in {folder} needs {library}; pip install "{package}"')
