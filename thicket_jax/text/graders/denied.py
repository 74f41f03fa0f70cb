"""What a text denies: an answer that is said not to be one, before it or after it.

"not 5", "neither 5 nor 6", "7 rather than 5" deny 5; so do "5 is wrong" and "5? No".
"""

import itertools
import re
from collections.abc import Sequence

_OR = re.compile(r"[)\]}\"'”’*`$\\]*,?\s+n?or\s+[(\[{\"'“‘*`$\\]*")
_NEAR = 60  # characters before an answer, and after it, that can deny it
_FILLING = (
    "an?|the|be|is|it|it's|in|that|to|equal|longer|called|named|think|believe|say|really|actually|likely|"
    "necessarily|exactly|simply|true|option|choice|answer|of"
)
_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|cannot|without|except|excluding|hardly|scarcely|unlikely)"
    r"|n['’]t|\b(?:rather|(?<!no )(?<!none )other|better|worse|likelier|likely) than|\binstead of"
    r"|\banything but|(?<!no )(?<!without )(?<!without a )\bdoubts?|\bnor|\bno)"
    rf"(?:\s+(?:{_FILLING})\b)*(?:\s+|\s*[:(\[])[(\[\"'“‘*`$\\{{:]*$",
    re.IGNORECASE,
)
_WRONG = (
    r"(?:\s+(?:is|are|was|were)|['’]s)(?:n['’]t|\s+not)?\s+(?:(?:all|both|clearly|also|the)\s+)*"
)
_CLOSING = r"[)\]}\"'”’*`.$]*"
_AFTER = re.compile(
    rf"{_CLOSING}(?:{_WRONG}(?:wrong|incorrect|false|impossible|ruled out|eliminated|excluded)\b"
    r"|\s+(?:is|are|was|were|can)(?:n['’]t|\s*not)\s+(?:the\s+|be\s+)*"
    r"(?:right|correct|true|answer|it)\b"
    r"|\s*[-–—:=]\s*(?:no|false|wrong|incorrect)\b(?!,? wait)"
    r"|\s+(?:is|are|was|were)(?:n['’]t|\s+not)\s*(?:[.!;,]|$)"
    r"|\s*\?[\s\"'”’*]*no\b(?!\s+(?:idea|doubt)))",
    re.IGNORECASE,
)


def before(text: str, at: int) -> bool:
    """Whether the words before a place deny what stands there.

    Example:
      >>> before("It is not 5", 10), before("It is none other than 5", 22)
      (True, False)
    """
    return _BEFORE.search(text[max(0, at - _NEAR) : at]) is not None


def after(text: str, at: int) -> bool:
    """Whether the words after a place rule out what ends there.

    Example:
      >>> after("5 is wrong", 1), after("5? No, 7", 1), after("5 is right", 1)
      (True, True, False)
    """
    return _AFTER.match(text[at : at + _NEAR]) is not None


def each(text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """For places of a text in order, whether each is denied, itself or in a row with "or".

    Example:
      >>> each("not 5 or 6 but 7", [(4, 5), (9, 10), (15, 16)])
      [True, True, False]
    """
    found = [before(text, begin) or after(text, end) for begin, end in spans]
    for i, ((_, end), (begin, _)) in enumerate(itertools.pairwise(spans)):
        if found[i] and _OR.fullmatch(text[end:begin]):
            found[i + 1] = True
    return found
