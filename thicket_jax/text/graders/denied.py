"""What a text denies: an answer that is said not to be one, before it or after it.

"not 5", "neither 5 nor 6", "7 rather than 5" deny 5; so do "5 is wrong" and "5? No".
"""

import re

_NEAR = 60  # characters before an answer, and after it, that can deny it
_FILLING = (
    "an?|the|be|is|it|it's|in|that|to|equal|called|named|think|believe|say|really|actually|likely|"
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
    r"|\s*[:=]\s*(?:no|false|wrong|incorrect)\b(?!,? wait)"
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
