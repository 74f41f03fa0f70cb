"""SMILES: reactants as equal molecules; as strings in normal form without RDKit."""

import pytest

from thicket_jax.errors import DataError
from thicket_jax.text.graders import smiles
from thicket_jax.text.grading import Outcome

MOLECULES = (
    "CCO",
    "CC(=O)O",
    "c1ccccc1",
    "c1ccc2[nH]ccc2c1",
    "C[C@H](N)C(=O)O",
    "C/C=C\\C",
    "CC(=O)Cl.CN",
    "[Na+].[O-]c1ccccc1",
    "O=C(O)c1ccncc1",
    "CC(C)(C)OC(=O)N[C@@H](Cc1ccccc1)C(=O)O",
    "[13CH3]C#N",
    "C[N+](C)(C)C.[Br-]",
)


@pytest.fixture
def chemistry():
    return pytest.importorskip("rdkit.Chem", reason="needs RDKit")


@pytest.fixture
def without_rdkit(monkeypatch):
    monkeypatch.setattr(smiles, "_chemistry", lambda: None)


@pytest.mark.parametrize("gold", MOLECULES)
def test_a_molecule_is_right_however_it_is_written(chemistry, gold):
    molecule = chemistry.MolFromSmiles(gold)
    written = chemistry.MolToRandomSmilesVect(molecule, 6, randomSeed=7)
    written += chemistry.MolToRandomSmilesVect(molecule, 3, randomSeed=7, kekuleSmiles=True)
    written += [chemistry.MolToSmiles(molecule, allHsExplicit=True)]
    written += [".".join(reversed(gold.split("."))), gold.replace(".", " . ")]
    outcomes = [smiles.grade(f"<answer>{each}</answer>", {"answer": gold}) for each in written]
    assert {outcome.score for outcome in outcomes} == {1.0}
    assert len({outcome.answer for outcome in outcomes}) == 1  # one class in a vote


def test_another_molecule_is_wrong(chemistry):
    for gold in MOLECULES:
        for other in (*MOLECULES, "C[C@@H](N)C(=O)O", "C/C=C/C", "CC#N", "CC(N)C(=O)O"):
            score = smiles.grade(f"<answer>{other}</answer>", {"answer": gold}).score
            assert score == float(other == gold), (gold, other)


@pytest.mark.parametrize(
    "dress",
    [
        "<answer>`{}`</answer>",
        "<answer>**{}**</answer>",
        "<answer>{}.</answer>",
        "<answer>\n{}\n</answer>",
        "<answer>Reactants: {}</answer>",
        r"<answer>\boxed{{{}}}</answer>",
        "I say {}.",
        "**{}**",
        "<answer>{}</answer>\n\nQuestion: and of this?\n<answer>CCCC</answer>",
    ],
)
def test_what_dresses_a_string_up_changes_nothing(dress):
    for gold in ["CC(=O)Cl.CN", "CCO"]:
        assert smiles.grade(dress.format(gold), {"answer": gold}).score == 1, gold


@pytest.mark.parametrize("text", ["C1CC", "C(C", "c1cccc", "C(C)(C)(C)(C)C"])
def test_what_is_no_molecule_is_no_answer(chemistry, text):
    assert smiles.grade(f"<answer>{text}</answer>", {"answer": "CCO"}) == Outcome(None, 0.0)
    with pytest.raises(DataError, match="no SMILES of a molecule"):
        smiles.grade("CCO", {"answer": text})


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
def test_without_rdkit_reactants_are_compared_as_strings(without_rdkit, text, answer):
    outcome = smiles.grade(text, {"answer": "CN.CC(=O)[Cl:3]".replace("[Cl:3]", "Cl")})
    assert outcome == Outcome(answer, float(answer == "CC(=O)Cl.CN"))
    assert not smiles.has_rdkit()


def test_a_task_without_reactants_is_an_error():
    with pytest.raises(DataError, match="no SMILES"):
        smiles.grade("CC", {"answer": "two amides"})
