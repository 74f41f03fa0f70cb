r"""What a text marks as its answer: `\boxed{...}`, `<answer>...</answer>`."""

import re

_BRACE = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}` whose braces balance, or None.

    Example:
      >>> boxed(r"\boxed{1}, so \boxed{\frac{1}{2}}, not \boxed{3")
      '\\frac{1}{2}'
    """
    opened: list[int | None] = []
    last = (-1, -1)
    for match in _BRACE.finditer(text):
        if match[0].startswith("\\boxed"):
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is not None and start > last[0]:
                last = (start, match.start())
    return text[slice(*last)] if last[0] >= 0 else None


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
