"""Words: a text that is the answer, or that names it as whole words.

Texts are compared in normal form: Unicode compatibility form, letter case folded, white space
collapsed, and without the quotation marks and markdown around them and the punctuation at their
end. What is a word is decided by letters, marks and digits of any script: "man" is not in "woman".
What is denied ("not Paris", "B is wrong") is not named.

Item: `answer`, a string or a list of those accepted; `choices` (optional, for `contains_word`): the
strings that can be meant.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.graders import denied
from thicket_jax.text.graders.marked import own_part
from thicket_jax.text.grading import Outcome

_AROUND, _AFTER = "\"'“”‘’«»`* ", ".,;:!?…"
_STATED = re.compile(
    r"\b(?:answer|choice|option)\b(?:\s+(?:must be|should be|would be|is|was|are)\b|\s*[:=])"
    r"|\b(?:i choose|i pick|it must be)\b|\\boxed\{|<answer>"
)
_SAID = re.compile(
    r"\b(?:it is|it's|it must be|i go with|go with|i would say|i'd say|i say|so|thus|hence"
    r"|therefore)[,:]?\s+(?:(?:option|choice)\s+)?[(\[\"'“‘*`]*$"
)
_CORRECTED = re.compile(
    r"\b(?:no,? wait|wait,|actually,|correction:|scratch that|on second thought|i mean)"
)
_OR = re.compile(
    r"[)\]\"'”’*`]*,?(?:/|\s+or\s+)(?:(?:maybe|perhaps|possibly|even|option)\s+)?[(\[\"'“‘*`]*"
)
_SENTENCE_END = re.compile(r"(?:[.!?](?=\s|$)|\n|</answer>|\b(?:because|since|as|whereas)\b)")
_IN_A_ROW = re.compile(r"[)\]\"'*`]*(?:,|/|\s+and|\s+or|\s+nor|,\s*and|,\s*or)\s*[(\[\"'*`]*")
_LISTED = re.compile(r"[)\]\"'*`]*(?:,\s*(?:n?or\s+)?|\s+n?or\s+)[(\[\"'*`]*")
_MOST_IN_A_ROW = 6
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
    text begins with ("Yes, no problem"); else the last that "it is ..." names, or that it names at
    all (of overlapping ones, the longest). What follows "no, wait" comes first; of two with "or"
    between them none is the answer. It is right if it is accepted. Without, every accepted answer
    that the text names anywhere is right, and the vote is over last lines in normal form.

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
    return denied.before(body, at) or denied.after(body, at + len(phrase))


def _chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text means, in normal form."""
    lines = unicodedata.normalize("NFKC", text).splitlines()
    written = "\n".join(" ".join(line.split()) for line in lines)
    body = written.casefold()
    if len(body) != len(written):  # places must agree
        written = body
    named = _named(written, body, choices)
    meant = [span for span in named if not _denied_span(body, span, named)]
    for match in reversed(list(_CORRECTED.finditer(body))):
        later = [span for span in meant if span[0] >= match.end()]
        if later:
            meant = later
            break
    span = _meant(body, named, meant)
    return None if span is None or _is_one_of_two(body, span, meant) else span[2]


def _meant(body: str, named: "Sequence[_Span]", meant: "Sequence[_Span]") -> "_Span | None":
    """Where the choice is named that a text means, of those that it does not deny."""
    for match in reversed(list(_STATED.finditer(body))):
        end = _SENTENCE_END.search(body, match.end())
        stated = [s for s in meant if match.end() <= s[0] < (end.start() if end else len(body))]
        if stated:
            return stated[0] if match[0] != "<answer>" else stated[-1]
    if meant and _begins(body, named, meant[0]):
        return meant[0]
    said = [span for span in meant if _SAID.search(body[max(0, span[0] - 40) : span[0]])]
    return (said or [*meant])[-1] if meant else None


def _is_one_of_two(body: str, span: "_Span", meant: "Sequence[_Span]") -> bool:
    """Whether a choice stands beside another one with "or" between them: two answers are none."""
    place = meant.index(span)
    beside = [*meant[max(0, place - 1) : place + 2]]
    return any(
        first[2] != second[2] and _OR.fullmatch(body[first[1] : second[0]]) is not None
        for first, second in itertools.pairwise(beside)
    )


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
        if not inside and not (phrase in letters and _is_no_choice(written, at)):
            found.append((at, end, phrase))
    return found


def _is_no_choice(written: str, at: int) -> bool:
    """Whether a letter is "a" or "I" in a sentence, or of "C++", and no name of a choice."""
    if written[at + 1 : at + 3] == "++" or written[at + 1 : at + 2] == "#":
        return True
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
        if denied.after(body, end):
            return True
    row = [span]  # of those before it, and whether "or" or "nor" joins them
    for other in reversed(named[:place]):
        between = body[other[1] : row[0][0]]
        if not _LISTED.fullmatch(between):
            break
        row.insert(0, other)
        if denied.before(body, other[0]):
            return _is_joined(body, [*row, *named[place + 1 : place + _MOST_IN_A_ROW]])
    return False


def _is_joined(body: str, row: "Sequence[_Span]") -> bool:
    """Whether "or" or "nor" joins choices in a row, after commas."""
    for one, other in itertools.pairwise(row):
        between = body[one[1] : other[0]]
        if not _LISTED.fullmatch(between):
            return False
        if "or" in between:
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
