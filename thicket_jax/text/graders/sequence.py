"""The order of shuffled sentences: ROCStories, and any task that asks for a permutation.

The answer is looked for in the last `<answer>...</answer>`; without one, in the whole text. It is
the last list of at least n labels in a row, n being their number, however it is written: `B, A, C`,
`B -> A -> C`, `[2, 0, 1]`, `BAC`, or one label a line, numbered or not (numbers before a label only
where labels are not numbers themselves). A list that is not a permutation of the labels is no
answer.

Columns: `exact`, 1 if the order is right; `position`, the share of labels that stand in their right
place; `adjacency`, the share of neighbours in the right order that are neighbours in the answer.

Item: `order`, the labels in the right order; `reward`, which column is the score (`exact`).
"""

import functools
import itertools
import re
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError, check_choice
from thicket_jax.text.graders import denied
from thicket_jax.text.graders.marked import own_part, tagged
from thicket_jax.text.grading import Outcome

COLUMNS = ("exact", "position", "adjacency")


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the order that a text gives; the vote is over orders.

    Example:
      >>> item = {"order": ["B", "A", "C"]}
      >>> grade("The order is: B -> A -> C.", item).score, grade("A, B, C", item).columns
      (1.0, {'exact': 0.0, 'position': 0.3333333333333333, 'adjacency': 0.0})
    """
    order = _labels(item["order"])
    reward = item.get("reward", "exact")
    check_choice("reward", reward, COLUMNS)
    found = _found(own_part(text), order) or _found(text, order)
    if found is None:
        return Outcome(None, 0.0, dict.fromkeys(COLUMNS, 0.0))
    columns = {
        "exact": float(found == order),
        "position": _share([a == b for a, b in zip(found, order, strict=True)]),
        "adjacency": _share([pair in _pairs(found) for pair in _pairs(order)]),
    }
    return Outcome(" ".join(found), columns[reward], columns)


def _labels(order: Any) -> list[str]:
    labels = [str(label).strip() for label in order] if isinstance(order, list | str) else []
    if len(labels) < 2 or len({label.casefold() for label in labels}) < len(labels):
        raise DataError(
            f"order={order!r:.80} must be a list of different labels; mend the data file"
        )
    return labels


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def _pairs(order: list[str]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(order))


def _found(text: str, order: list[str]) -> list[str] | None:
    marked = tagged(text)
    return _last_order(text if marked is None else marked, order)


def _last_order(text: str, order: list[str]) -> list[str] | None:
    spelling = {label.casefold(): label for label in order}
    for match in reversed(list(_lists(tuple(spelling)).finditer(text))):
        if denied.before(text, match.start()) or denied.after(text, match.end()):
            continue
        parts = match["together"] or _label(tuple(spelling)).findall(match[0])
        if len(parts) >= len(order):
            found = [spelling[part.casefold()] for part in parts]
            return found if sorted(found) == sorted(order) else None
    return None


@functools.lru_cache(maxsize=64)
def _label(labels: tuple[str, ...]) -> re.Pattern[str]:
    some = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{some})(?!\w)", re.IGNORECASE)


@functools.lru_cache(maxsize=64)
def _lists(labels: tuple[str, ...]) -> re.Pattern[str]:
    """What finds labels in a row; `together` is a word made of labels of one letter."""
    one = _label(labels).pattern
    number = "" if any(map(str.isdigit, "".join(labels))) else r"|\(?[0-9]+[.):]"
    arrows = r"\\(?:to|rightarrow|Rightarrow|longrightarrow|implies)(?![A-Za-z])"
    ordinals = "first|second|third|fourth|fifth|sixth|next|finally|lastly|last"
    between = rf"and|then|sentence|followed by|{ordinals}"
    beside = rf"(?:[ \t,;:>←-⇿➔-➾⟵-⟿|/()\[\]{{}}<\"'*`$_=–—-]|{arrows}|\b(?:{between})\b{number})+"
    below = rf"[ \t.,;:)\]*]*\n\s*(?:(?:[-*•]{number})[ \t]*)?(?:sentence[ \t]+)?\(?\**"
    letters = "".join(map(re.escape, labels)) if all(len(x) == 1 for x in labels) else ""
    together = rf"(?<!\w)[{letters}]{{{len(labels)}}}(?!\w)" if letters else "(?!)"
    pattern = rf"(?P<together>{together})|{one}(?:(?:{beside}|{below}){one})*"
    return re.compile(pattern, re.IGNORECASE)
