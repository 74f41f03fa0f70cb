"""SMILES: reactants as strings in normal form."""

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text.graders import smiles
from thicket_jax.text.grading import Outcome


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("CC(=O)Cl.CN", "CC(=O)Cl.CN"),
        ("The reactants are CN.CC(=O)Cl.", "CC(=O)Cl.CN"),
        ("<answer> CN . CC(=O)Cl\n</answer> I say", "CC(=O)Cl.CN"),
        ("<answer>[CH3:12]N.CC(=O)Cl</answer>", "CC(=O)Cl.[CH3]N"),
        ("NC.CC(=O)Cl", "CC(=O)Cl.NC"),
        (r"C/C=C\C.[Na+].[O-]c1ccc%10cc1", r"C/C=C\C.[Na+].[O-]c1ccc%10cc1"),
        ("<answer>the amine</answer>", None),
        ("<answer>CC..N</answer>", None),
        ("an amide", None),
        ("", None),
    ],
)
def test_reactants_are_compared_as_strings_in_normal_form(text, answer):
    outcome = smiles.grade(text, {"answer": "CN.CC(=O)[Cl:3]".replace("[Cl:3]", "Cl")})
    assert outcome == Outcome(answer, float(answer == "CC(=O)Cl.CN"))


def test_a_task_without_reactants_is_an_error():
    with pytest.raises(DataError, match="no SMILES"):
        smiles.grade("CC", {"answer": "two amides"})
