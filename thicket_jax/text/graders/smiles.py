"""SMILES strings: the reactants of USPTO-50k, as exact match of a normal form of the string.

The answer is the content of the last `<answer>...</answer>`; else the last word of the text that is
a SMILES string by its characters. In normal form it has no white space and no atom maps
(`[CH3:1]` is `[CH3]`), and its components, between dots, are sorted.

Nothing else is understood, and no chemistry library is used, so that a score does not depend on
what is installed: the same molecule written another way (`OCC` for `CCO`) counts as wrong, as in
exact match against canonical strings. Write the data file's answers as the model is to write them.

Item: `answer`, the SMILES string of the reactants.
"""

import re
from collections.abc import Mapping
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.graders.marked import tagged
from thicket_jax.text.grading import Outcome

_ATOM = r"\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops*]"
_SMILES = re.compile(rf"(?:{_ATOM}|[-=#$:/\\().~]|[0-9]|%[0-9]{{2}})+")
_HAS_ATOM = re.compile(_ATOM)
_ATOM_MAP = re.compile(r":[0-9]+\]")


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the reactants that a text gives.

    Example:
      >>> grade("<answer>CC(=O)Cl . [NH2:3]C</answer>", {"answer": "[NH2]C.CC(=O)Cl"})
      Outcome(answer='CC(=O)Cl.[NH2]C', score=1.0, columns={})
    """
    gold = normal(item["answer"])
    if gold is None:
        raise DataError(
            f"the task's answer {item['answer']!r:.80} is no SMILES; mend the data file"
        )
    marked = tagged(text)
    answer = _last(text) if marked is None else normal(marked)
    return Outcome(answer, float(answer == gold))


def normal(text: str) -> str | None:
    """Returns the normal form of a SMILES string, or None if it is none by its characters."""
    joined = "".join(text.split())
    if not (_SMILES.fullmatch(joined) and _HAS_ATOM.search(joined)):
        return None
    components = _ATOM_MAP.sub("]", joined).split(".")
    return ".".join(sorted(components)) if all(components) else None


def _last(text: str) -> str | None:
    for word in reversed(text.split()):
        answer = normal(word.strip("`\"'*,;!?").rstrip("."))
        if answer is not None:
            return answer
    return None
