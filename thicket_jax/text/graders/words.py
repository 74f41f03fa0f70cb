"""Words: a text that is the answer, or that names it as whole words.

Texts are compared in normal form: Unicode compatibility form, letter case folded, white space
collapsed, and without the quotation marks and markdown around them and the punctuation at their
end. What is a word is decided by letters, marks and digits of any script: "man" is not in "woman".
What is denied ("not Paris", "B is wrong") is not named.

Item: `answer`, a string or a list of those accepted; `choices` (optional, for `contains_word`): the
strings that can be meant.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.graders.marked import own_part
from thicket_jax.text.grading import Outcome

_AROUND, _AFTER = "\"'“”‘’«»`* ", ".,;:!?…"
_NEAR = 60  # characters before a phrase, and after it, that can deny it
_FILLING = (
    "an?|the|be|is|it|it's|in|that|to|equal|called|named|think|believe|say|really|actually|likely|"
    "necessarily|exactly|true|option|choice|answer"
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|cannot|without|except|excluding)|n['’]t|\b(?:rather|other) than"
    rf"|\binstead of|\bnor|\bno)(?:\s+(?:{_FILLING})\b)*\s+[(\[\"'“‘*`]*$"
)
_WRONG = (
    r"(?:\s+(?:is|are|was|were)|['’]s)(?:n['’]t|\s+not)?\s+(?:(?:all|both|clearly|also|the)\s+)*"
)
_RULED_OUT = re.compile(
    rf"[)\]\"'”’*`.]*{_WRONG}(?:wrong|incorrect|false|impossible|ruled out|eliminated)\b"
    r"|[)\]\"'”’*`.]*\s+(?:is|are|was|were|can)(?:n['’]t|\s*not)\s+(?:the\s+|be\s+)*"
    r"(?:right|correct|true|answer|it)\b"
)
_STATED = re.compile(
    r"\b(?:answer|choice|option)\b(?:\s+(?:must be|should be|would be|is|was|are)\b|\s*[:=])"
    r"|\b(?:i choose|i pick|it must be)\b|\\boxed\{|<answer>"
)
_SENTENCE_END = re.compile(r"(?:[.!?](?=\s|$)|\n|</answer>|\b(?:because|since|as|whereas)\b)")
_IN_A_ROW = re.compile(r"[)\]\"'*`]*(?:,|/|\s+and|\s+or|\s+nor|,\s*and|,\s*or)\s*[(\[\"'*`]*")
_GOES_ON = re.compile(r"[)\]\"'*`]*\s*(?:[,.;:?!/\n]|$|(?:and|or|nor|are|were)\b)")
_VERBS = re.compile(
    "is|was|are|be|because|since|as|and|or|but|for|would|must|should|can|has|seems|looks|in|which|"
    "not|isn't|wasn't"
)


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

    With `choices`, the answer is the choice that "the answer is ..." names; else the one that the
    text begins with ("Yes, no problem"); else the one that it names last (of overlapping ones, the
    longest). It is right if it is accepted. Without, every accepted answer that the text names
    anywhere is right, and the vote is over last lines in normal form.

    Example:
      >>> contains_word("It is a woman.", {"answer": "man"}).score
      0.0
      >>> contains_word("Not a cat but a dog", {"answer": "dog", "choices": ["cat", "dog"]}).answer
      'dog'
    """
    accepted, choices = _accepted(item), item.get("choices")
    own = own_part(text)
    if choices is None:
        body = normal(own)
        places = [(at, phrase) for phrase in accepted for at in positions(body, phrase)]
        named = any(not _denied(body, at, phrase) for at, phrase in places)
        return Outcome(normal(own.rstrip().rpartition("\n")[2]) or None, float(named))
    answer = _chosen(own, choices) or _chosen(text, choices)
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


def _denied(body: str, at: int, phrase: str) -> bool:
    """Whether the words before a phrase deny it, or the words after it rule it out."""
    end = at + len(phrase)
    before, after = body[max(0, at - _NEAR) : at], body[end : end + _NEAR]
    return _DENIED.search(before) is not None or _RULED_OUT.match(after) is not None


def _chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text means, in normal form."""
    lines = unicodedata.normalize("NFKC", text).splitlines()
    written = "\n".join(" ".join(line.split()) for line in lines)
    body = written.casefold()
    if len(body) != len(written):  # places must agree
        written = body
    named = _named(written, body, choices)
    meant = [span for span in named if not _denied_span(body, span, named)]
    for match in reversed(list(_STATED.finditer(body))):
        end = _SENTENCE_END.search(body, match.end())
        stated = [s for s in meant if match.end() <= s[0] < (end.start() if end else len(body))]
        if stated:
            return (stated[0] if match[0] != "<answer>" else stated[-1])[2]
    if meant and _begins(body, named, meant[0]):
        return meant[0][2]
    return meant[-1][2] if meant else None


_Span = tuple[int, int, str]
"""Where a choice is named: its begin, its end, and the choice in normal form."""


def _named(written: str, body: str, choices: Sequence[str]) -> list[_Span]:
    """Every choice that a text names, those inside a longer one left out, by place."""
    phrases = dict.fromkeys(normal(choice) for choice in choices)
    letters = {normal(choice) for choice in choices if len(choice) == 1 and choice.isupper()}
    spans = sorted((at, -len(p), p) for p in phrases for at in positions(body, p))
    found: list[_Span] = []
    for at, minus_length, phrase in spans:
        end = at - minus_length
        inside = found and end <= found[-1][1]
        if not inside and not (phrase in letters and _is_article(written, at)):
            found.append((at, end, phrase))
    return found


def _is_article(written: str, at: int) -> bool:
    """Whether a letter is "a" or "I" in a sentence, and no name of a choice."""
    if written[at] not in "aAI":
        return False
    bracketed = written[at - 1 : at] in ("(", "[", "*", "`", '"') or written[at + 1 : at + 2] == ")"
    word = re.match(r" (\w[\w']*)", written[at + 1 :])
    if bracketed or word is None:
        return False
    return written[at] == "a" or (word[1].islower() and not _VERBS.fullmatch(word[1]))


def _denied_span(body: str, span: _Span, named: Sequence[_Span]) -> bool:
    """Whether a choice is denied, itself or in a row ("neither A nor B", "A and B are wrong")."""
    at, end, phrase = span
    if _denied(body, at, phrase):
        return True
    place = named.index(span)
    for other in named[place + 1 :]:
        if not _IN_A_ROW.fullmatch(body[end : other[0]]):
            break
        end = other[1]
        if _RULED_OUT.match(body[end : end + _NEAR]):
            return True
    for other in reversed(named[:place]):
        if not re.fullmatch(r"[)\]\"'*`]*,?\s*(?:or|nor)\s+[(\[\"'*`]*", body[other[1] : at]):
            break
        at = other[0]
        if _DENIED.search(body[max(0, at - _NEAR) : at]):
            return True
    return False


def _begins(body: str, named: Sequence[_Span], first: _Span) -> bool:
    """Whether a text is its first word, a choice, and what it says of it."""
    at, end, _ = first
    if body[:at].strip("([\"'“‘*`\n "):
        return False
    after = re.match(r"[)\]\"'”’*`]*([.,:;!\n)—–]| -|$)", body[end:])
    if after is None:
        return False
    listed = (
        _IN_A_ROW.fullmatch(body[end : other[0]]) and _GOES_ON.match(body[other[1] :])
        for other in named
        if other[0] > end
    )
    return not any(listed)


def _accepted(item: Mapping[str, Any]) -> list[str]:
    answer = item["answer"]
    accepted = [answer] if isinstance(answer, str) else answer
    if not (isinstance(accepted, list) and accepted and all(isinstance(a, str) for a in accepted)):
        raise DataError(
            f"the task's answer {answer!r:.80} must be a string or a list of them; mend the file"
        )
    return [normal(phrase) for phrase in accepted]
