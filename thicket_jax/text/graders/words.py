"""Words: a text that is the answer, or that names it as whole words.

Texts are compared in normal form: Unicode compatibility form, letter case folded, white space
collapsed, and without the quotation marks and markdown around them and the punctuation at their
end. What is a word is decided by letters, marks and digits of any script: "man" is not in "woman".

Item: `answer`, a string or a list of those accepted; `choices` (optional, for `contains_word`): the
strings that can be meant.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.grading import Outcome

_AROUND, _AFTER = "\"'“”‘’«»`* ", ".,;:!?…"


def exact(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades whether the whole text is an accepted answer; the vote is over texts in normal form.

    Example:
      >>> exact(" The  Moon. ", {"answer": ["moon", "the moon"]})
      Outcome(answer='the moon', score=1.0, columns={})
    """
    answer = normal(text)
    return Outcome(answer or None, float(answer in _accepted(item)))


def contains_word(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades whether the text names an accepted answer as whole words.

    With `choices`, the answer is the choice that the text names last (of overlapping ones, the
    longest), and it is right if it is accepted. Without, every accepted answer that the text names
    anywhere is right, and the vote is over last lines in normal form.

    Example:
      >>> contains_word("It is a woman.", {"answer": "man"}).score
      0.0
      >>> contains_word("Not a cat but a dog", {"answer": "dog", "choices": ["cat", "dog"]}).answer
      'dog'
    """
    accepted, choices, body = _accepted(item), item.get("choices"), normal(text)
    if choices is None:
        named = any(True for phrase in accepted for _ in positions(body, phrase))
        return Outcome(normal(text.rstrip().rpartition("\n")[2]) or None, float(named))
    answer = _last_named(body, choices)
    return Outcome(answer, float(answer in accepted))


def normal(text: str) -> str:
    """Returns the normal form that texts are compared in.

    Example:
      >>> normal('  "The   MOON." ')
      'the moon'
    """
    whole = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    kept = whole.rstrip(_AFTER)
    while len(kept) > 1 and kept[0] in _AROUND and kept[-1] in _AROUND:
        kept = kept[1:-1].strip().rstrip(_AFTER)
    return kept or whole


def positions(text: str, phrase: str) -> Iterator[int]:
    """Yields where a phrase stands in a text as whole words.

    Example:
      >>> list(positions("a woman, a man", "man"))
      [11]
    """
    at = text.find(phrase) if phrase else -1
    while at >= 0:
        end = at + len(phrase)
        begins = at == 0 or not (_in_word(phrase[0]) and _in_word(text[at - 1]))
        ends = end == len(text) or not (_in_word(phrase[-1]) and _in_word(text[end]))
        if begins and ends:
            yield at
        at = text.find(phrase, at + 1)


def _in_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _last_named(body: str, choices: Sequence[str]) -> str | None:
    phrases = dict.fromkeys(normal(choice) for choice in choices)
    spans = [(at, -len(phrase), phrase) for phrase in phrases for at in positions(body, phrase)]
    last, reach = None, 0
    for at, minus_length, phrase in sorted(spans):
        if at - minus_length > reach:  # else it stands inside a longer one
            last, reach = phrase, at - minus_length
    return last


def _accepted(item: Mapping[str, Any]) -> list[str]:
    answer = item["answer"]
    accepted = [answer] if isinstance(answer, str) else answer
    if not (isinstance(accepted, list) and accepted and all(isinstance(a, str) for a in accepted)):
        raise DataError(
            f"the task's answer {answer!r:.80} must be a string or a list of them; mend the file"
        )
    return [normal(phrase) for phrase in accepted]
