r"""What a text marks as its answer: `\boxed{...}`, `<answer>...</answer>`; where it runs on."""

import re

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BOXED_ALONE = re.compile(r"\\boxed\s*([0-9A-Za-z])(?![0-9A-Za-z])")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
# How the next prompt begins, in a text of a base model that runs on: usual labels, marks of chats,
# and the words of this package's own prompts.
_NEXT = re.compile(
    r"^[ \t]*(?:[*#]+[ \t]*)?(?:(?:question|problem|q|user|human|instruction)[ \t]*[0-9]*[ \t]*:"
    r"|<\|(?:im_start|user|start_header_id)\||\[INST\]|Reason step by step[,.]"
    r"|Use the numbers [0-9]|These sentences of a story are in the wrong order"
    r"|The product of a reaction, as a SMILES string,)",
    re.IGNORECASE | re.MULTILINE,
)


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}` whose braces balance, or None.

    Example:
      >>> boxed(r"\boxed{1}, so \boxed{\frac{1}{2}}, not \boxed{3")
      '\\frac{1}{2}'
    """
    opened: list[int | None] = []
    last = (-1, -1)
    for match in _BRACE.finditer(text):
        if match[0][-1] == "{" and len(match[0]) > 2:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is not None and start > last[0]:
                last = (start, match.start())
    if last[0] < 0:  # without braces a box holds one character
        alone = _BOXED_ALONE.findall(text)
        return alone[-1] if alone else None
    return text[slice(*last)]


def tagged(text: str) -> str | None:
    """Returns the content of the last `<answer>...</answer>`, or None.

    Example:
      >>> tagged("<answer>1</answer> or <answer> 2 </answer> or <answer>3")
      ' 2 '
    """
    start, last = None, None
    for match in _TAG.finditer(text):
        if not match[1]:
            start = match.end()
        elif start is not None:
            last, start = text[start : match.start()], None
    return last


def own_part(text: str) -> str:
    r"""Returns a text up to where it runs on into a next question; the whole text if it does not.

    What follows is the model's own next question and an answer to that one, no answer to ours.

    Example:
      >>> own_part("#### 24\n\nQuestion: Ann has 3 pens?\n#### 3")
      '#### 24\n\n'
    """
    for match in _NEXT.finditer(text):
        if text[: match.start()].strip():
            return text[: match.start()]
    return text
