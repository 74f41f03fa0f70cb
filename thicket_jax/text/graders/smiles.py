"""SMILES strings: the reactants of USPTO-50k, as equal molecules.

The answer is the content of the last `<answer>...</answer>`, or box; else the last word of the text
that is a SMILES string. Atom maps (`[CH3:1]`), the order of components, between dots, and how a
molecule is written (`OCC` or `CCO`) do not count: two answers are equal if RDKit's canonical SMILES
are, its stereochemistry included. What RDKit does not take as a molecule is no answer.

Without RDKit, strings are compared as text, without atom maps and with sorted components, so that
the same molecule written another way counts as wrong; `has_rdkit` says which, and so do tasks.

Item: `answer`, the SMILES string of the reactants.
"""

import functools
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from thicket_jax.errors import DataError
from thicket_jax.text.graders.marked import boxed, own_part, tagged
from thicket_jax.text.grading import Outcome

_ATOM = r"\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops*]"
_SMILES = re.compile(rf"(?:{_ATOM}|[-=#$:/\\().~]|[0-9]|%[0-9]{{2}})+")
_HAS_ATOM = re.compile(_ATOM)
_ATOM_MAP = re.compile(r":[0-9]+\]")
_AROUND = " \t\r\n`\"'*,;!?$"
_BETWEEN = re.compile(r"\s*(?:\s\+\s|,\s|;\s|\n|\sand\s)\s*")
_LABEL = re.compile(r"^[A-Za-z][A-Za-z ]*[*_]*:(?=\s)")
_NUMBERED = re.compile(r"^\s*[0-9]+[.)]\s+", re.MULTILINE)
_LONGEST = 4000  # characters of a string that RDKit is given


def prepare() -> None:
    """Imports RDKit, where it is installed, before the first text's time begins."""
    _chemistry()


def has_rdkit() -> bool:
    """Whether molecules are compared; without RDKit, strings are."""
    return _chemistry() is not None


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades the reactants that a text gives.

    Example:
      >>> grade("<answer>CC(=O)Cl . [NH2:3]C</answer>", {"answer": "[NH2]C.CC(=O)Cl"}).score
      1.0
    """
    gold = molecules(item["answer"])
    if gold is None:
        raise DataError(
            f"the task's answer {item['answer']!r:.80} is no SMILES of a molecule; mend the data "
            "file"
        )
    answer = _found(own_part(text)) or _found(text)
    return Outcome(answer, float(answer == gold))


def molecules(text: str) -> str | None:
    """Returns the canonical SMILES of what a string says, or None if that is no molecule.

    Without RDKit it is the string's `normal` form.
    """
    written = normal(text)
    chemistry = _chemistry()
    if chemistry is None or written is None:
        return written
    if len(written) > _LONGEST:
        return None
    molecule = chemistry.MolFromSmiles(written)
    return None if molecule is None else str(chemistry.MolToSmiles(molecule))


def normal(text: str) -> str | None:
    """Returns the normal form of a SMILES string, or None if it is none by its characters."""
    joined = "".join(text.split())
    if not (_SMILES.fullmatch(joined) and _HAS_ATOM.search(joined)):
        return None
    components = _ATOM_MAP.sub("]", joined).split(".")
    return ".".join(sorted(components)) if all(components) else None


def _found(text: str) -> str | None:
    marked = tagged(text)
    marked = boxed(text) if marked is None else marked
    if marked is None:
        return _last(text)
    inner = boxed(marked)
    written = _LABEL.sub("", (marked if inner is None else inner).strip(_AROUND))
    written = _NUMBERED.sub("", written)
    return molecules(_BETWEEN.sub(".", written.strip(_AROUND)).rstrip("."))


def _last(text: str) -> str | None:
    for word in reversed(text.split()):
        answer = molecules(word.strip(_AROUND).rstrip("."))
        if answer is not None:
            return answer
    return None


@functools.cache
def _chemistry() -> ModuleType | None:
    """RDKit's module of molecules; None where it is not installed."""
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        return None
    RDLogger.logger().setLevel(RDLogger.CRITICAL)  # it prints what is wrong with a string
    return Chem
