"""USPTO-50k: the reactants of a reaction from its product (Neural Thickets).

Rows: `product` and `reactants` (also `prod_smiles`, `products`, `reactant`), or a whole reaction,
`reactants>reagents>products`, in `rxn_smiles`, `reaction` or `reactants>reagents>production`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from thicket_jax.errors import DataError
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, columns, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.graders.smiles import has_rdkit, molecules, normal

_REACTIONS = ("rxn_smiles", "reaction", "reactants>reagents>production")
_PRODUCTS = ("product", "prod_smiles", "products")
_REACTANTS = ("reactants", "reactant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run uspto50k`."""

    data: str | None = None
    """File or folder with product and reactants, or rxn_smiles, as SMILES."""
    max_tokens: int = 256
    """Tokens that are generated at most for an answer."""

    STOPS: ClassVar[tuple[str, ...]] = (
        *settings.Options.STOPS,
        "\nThe product of a reaction, as a SMILES string,",
    )


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    products, reactants = (*_PRODUCTS, *_REACTIONS), (*_REACTANTS, *_REACTIONS)
    split = shared.read_split(options, (products, reactants), identity=(products,))

    def item(row: Mapping[str, Any]) -> dict[str, Any]:
        answer = reaction(row)[1]
        if molecules(answer) is None:
            raise DataError(f"its reactants {answer!r:.80} are no molecules")
        return {"answer": answer}

    notes: tuple[str, ...] = ()
    if not has_rdkit():
        notes = (
            "RDKit is not installed: reactants are compared as text (components sorted, atom maps "
            "dropped), and the same molecule written another way counts as wrong; pip install "
            '"thicket-jax[text]".',
        )
    grader = "thicket_jax.text.graders.smiles:grade"
    spec = asking.Spec("uspto50k", grader, prompt, item, notes, shot)
    return shared.build(options, spec, split, tell)


def reaction(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a row's product and reactants in normal form, without atom maps."""
    product, reactants = columns.either(row, *_PRODUCTS), columns.either(row, *_REACTANTS)
    if product is None or reactants is None:
        whole = columns.text(row, *_REACTIONS)
        parts = whole.split(">")
        if len(parts) != 3:
            raise DataError(f"{whole!r:.80} is not a reaction, reactants>reagents>products")
        product, reactants = parts[2], parts[0]
    given = (columns.as_text(product, "product"), columns.as_text(reactants, "reactants"))
    found = [normal(each) for each in given]
    for each, smiles in zip(given, found, strict=True):
        if smiles is None:
            raise DataError(f"{each!r:.80} is no SMILES string")
    return str(found[0]), str(found[1])


def prompt(row: Mapping[str, Any]) -> str:
    """Returns what is asked."""
    return (
        f"The product of a reaction, as a SMILES string, is {reaction(row)[0]}. Which reactants "
        "was it made from? Write their SMILES strings, separated by dots, between <answer> and "
        "</answer>."
    )


def shot(row: Mapping[str, Any]) -> str:
    """Returns the reactants, as an answer."""
    return f"<answer>{reaction(row)[1]}</answer>"
