"""Answers written to mislead a grader: by kind, each with its right score in both extractions."""

import pytest

from thicket_jax.text.graders import find

LETTERS = ["A", "B", "C", "D"]
ABC = {"answer": "C", "choices": LETTERS}
MODULES = {"code": "code", "countdown": "countdown", "smiles": "smiles", "order": "sequence"}
NEEDS = {"code": "confined", "math": "library"}
FLEXIBLE = ("flexible",)
BOTH = ("strict", "flexible")


def number(text, answer, score, ways=BOTH):
    return "numeric", text, {"answer": answer}, score, ways


def maths(text, answer, score, ways=BOTH, **item):
    return "math", text, {"answer": answer, **item}, score, ways


def box(content, answer, score, **item):
    return maths(rf"so \boxed{{{content}}}", answer, score, **item)


def choice(text, score, answer="C", choices=LETTERS):
    return "contains-word", text, {"answer": answer, "choices": choices}, score, BOTH


def word(text, answer, score):
    return "contains-word", text, {"answer": answer}, score, BOTH


def code(text, score, test="assert inc(1) == 2"):
    return "code", text, {"tests": [test]}, score, BOTH


def blocks(*programs):
    return "\nSo:\n".join(f"```python\n{program}\n```" for program in programs)


PLUS, SAME = "def inc(x): return x + 1", "def inc(x): return x"


def puzzle(text, score, ways=BOTH):
    return "countdown", text, {"numbers": [1, 2, 8], "target": 24}, score, ways


def smiles(text, answer, score):
    return "smiles", text, {"answer": answer}, score, BOTH


def order(text, score, right="CADB"):
    return "order", text, {"order": list(right)}, score, BOTH


CASES = {
    "decoration": [
        number("####   72   ####", "72", 1),
        number("#### about 72", "72", 1),
        number("#### 72\n#### ", "72", 0, ("strict",)),
        number("#### 72 and 73", "72", 0),
        number("#### ***72***", "72", 1),
        number("#### ~~71~~ 72", "72", 1),
        number("#### <b>72</b>", "72", 1),
        number("#### $\\mathbf{72}$", "72", 1),
        number("#### \\textbf{72} apples", "72", 1),
        number("#### **Final answer:** \\(72\\).", "72", 1),
        number("#### {72}", "72", 1),
        number("####72", "72", 1),
        number("#### 72 (seventy-two)", "72", 1),
        number("#### ≈ 72", "72", 1),
        number("#### 72!", "72", 1),
        number("#### -72", "72", 0),
        number("#### 7 2", "72", 0),
        number("#### Ans. 72", "72", 1),
        number("#### £72.00", "72", 1),
        number("#### $72,000", "72000", 1),
        number("#### 72,5", "72.5", 0),
        number("#### 1 234", "1234", 1),
        number("#### 12 3456", "123456", 0),
        number("#### 1_234", "1234", 0),
        number("#### 7/2", "3.5", 1),
        number("#### 3 1/2 hours", "3.5", 1),
        number("#### 72 = 8 * 9", "72", 0),
        number("#### 8 * 9 = 72", "72", 1, FLEXIBLE),
        maths("<answer>\\boxed{5}</answer>", "5", 1),
        maths("**Answer: 5**", "5", 1, FLEXIBLE),
        maths("The final answer is $\\boxed{5.}$", "5", 1),
        maths("\\boxed{5}\\)", "5", 1),
        maths("\\[\\boxed{ \\mathrm{5} }\\]", "5", 1),
        maths("\\boxed{\\boxed{5}}", "5", 1),
        maths("\\boxed{\\text{The answer is }5}", "5", 1),
        maths("\\boxed5", "5", 1),
        maths("\\fbox{5}", "5", 1),
    ],
    "equivalence": [
        box("0.\\overline{3}", "\\frac13", 1),
        box("0.1\\overline{6}", "\\frac16", 1),
        box("0.\\overline{3}", "0.3", 0),
        box("x=2y", "y=\\frac{x}{2}", 1),
        box("x=2y", "y=2x", 0),
        box("\\cos 60^\\circ", "\\frac12", 1),
        box("1 < x < 2", "(1,2)", 1),
        box("0.1", "\\frac{1}{10}", 1),
        box("1e-3", "0.001", 1),
        box("2.50", "2.5", 1),
        box("\\frac{1}{10^{30}}", "\\frac{1}{10^{31}}", 0),
        box("10^{30}+1", "10^{30}", 0),
        box("1.41421356237309504880168872420969807857", "\\sqrt{2}", 0),
        box("\\tfrac{\\sqrt 3}{3}", "\\frac{1}{\\sqrt{3}}", 1),
        box("\\sqrt[3]{8}", "2", 1),
        box("2\\frac{1}{2}", "\\frac{5}{2}", 1),
        box("2\\frac{1}{2}", "1", 0),
        box("e^{i\\pi}", "-1", 1),
        box("4i+3", "3+4i", 1),
        box("3-4i", "3+4i", 0),
        box("\\log_2 8", "3", 1),
        box("\\binom{5}{2}", "10", 1),
        box("5!", "120", 1),
        box("\\sin^2 x + \\cos^2 x", "1", 1),
        box("(x+1)^2", "x^2+2x+1", 1),
        box("x^2+1", "x^2+2", 0),
        box("\\frac{x^2-1}{x-1}", "x+1", 1),
        box("|x|", "x", 0),
        box("-\\frac{1}{2}", "\\frac{-1}{2}", 1),
        box("\\frac{1}{-2}", "-0.5", 1),
        box("x=\\pm 2", "x=2", 0),
        box("\\pm 2", "2,-2", 1),
        box("x = 3", "y = 3", 1),
        box("x \\le 3", "x < 3", 0),
        box("x \\geq 3", "[3,\\infty)", 1),
        box("3 > x", "x < 3", 1),
        box("\\infty", "-\\infty", 0),
        box("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", 1),
        box("\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", 0),
    ],
    "units": [
        box("\\text{5 cm}", "5", 1),
        box("\\text{5 cm}", "5\\text{ mm}", 0),
        box("5¢", "\\$5", 0),
        box("5 \\text{ cm}^2", "5", 1),
        box("5\\,\\mathrm{cm}", "5\\text{ centimeters}", 1),
        box("5\\text{ cm}", "5\\text{ inches}", 0),
        box("\\$5.00", "5", 1),
        box("5\\text{ dollars}", "\\$5", 1),
        box("50\\%", "0.5", 1),
        box("50\\%", "50\\%", 1),
        box("90^{\\circ}", "\\frac{\\pi}{2}", 0),
        box("3\\text{ m/s}", "3\\text{ km/h}", 0),
        box("5\\text{ pm}", "5\\text{ am}", 0),
        box("12\\text{ sq cm}", "12\\text{ cm}^2", 1),
        box("1{,}000\\text{ km}", "1000", 1),
        box("7\\text{ feet}", "7\\text{ ft}", 1),
    ],
    "bases and sets": [
        box("101_2", "101_{2}", 1),
        box("101_{\\text{two}}", "101_2", 1),
        box("101_2", "5", 0),
        box("0101_2", "101_2", 1),
        box("101_{10}", "101", 1),
        box("ff_{16}", "FF_{16}", 1),
        box("\\{3,2,1\\}", "\\{1,2,3\\}", 1),
        box("1,2,3", "\\{1,2,3\\}", 1),
        box("\\{1,2\\}", "(1,2)", 0),
        box("[1,2]", "(1,2)", 0),
        box("(1,2]", "(1,2]", 1),
        box("(-\\infty,1)\\cup(2,\\infty)", "(2,\\infty)\\cup(-\\infty,1)", 1),
        box("(-\\infty,1]\\cup(2,\\infty)", "(2,\\infty)\\cup(-\\infty,1)", 0),
        box("\\{1,1,2\\}", "\\{1,2\\}", 1),
        box("\\{\\}", "0", 0),
        box("\\{1\\}", "1", 1),
        box("(1, 2), (3, 4)", "(3,4),(1,2)", 1),
        box("(1, 2), (4, 3)", "(3,4),(1,2)", 0),
    ],
    "programs in blocks": [
        code("Here's the code:\n\n    def inc(x):\n        return x + 1\n", 1),
        code("```python\ndef inc(x)\n    return x + 1\n```", 0),
        code(blocks(PLUS, SAME), 0),
        code(blocks(SAME, PLUS), 1),
        code(blocks("ONE = 1", "def inc(x): return x + ONE"), 1),
        code(blocks("import math as m", "def inc(x): return int(m.ceil(x)) + 1"), 1),
        code(blocks("def inc(x): return add(x, 1)", "def add(a, b): return a + b"), 1),
        code("```python\ndef inc(x): return x + 1\n```\nOutput:\n```\n2\n```", 1),
        code("```python\ndef inc(x): return x + 1\n```\n```text\ninc(1) == 2\n```", 1),
        code("```python\ndef inc(x): return x + 1\n\nassert inc(1) == 2\nprint(inc(1))\n```", 1),
        code(">>> def inc(x):\n...     return x + 1\n", 1),
        code("```python\n>>> def inc(x):\n...     return x + 1\n...\n>>> inc(1)\n2\n```", 1),
        code("```Python 3\ndef inc(x): return x + 1\n```", 1),
        code("```{.python}\ndef inc(x): return x + 1\n```", 1),
        code("<code>\ndef inc(x): return x + 1\n</code>", 1),
        code("```python\ndef inc(x):\n\treturn x + 1\n```", 1),
        code("```python\nclass S:\n    def inc(self, x): return x + 1\n```", 0),
        code("```python\ninc = lambda x: x + 1\n```", 1),
        code("I would write `def inc(x): return x + 1`.", 1),
        code("```python\ndef inc(x): return x + 1\n```\n```javascript\nfunction inc(x) {}\n```", 1),
    ],
    "equations": [
        puzzle("<answer>(1+2)*8 = 24 ✓</answer>", 1),
        puzzle("<answer>8/(1/(1+2))</answer>", 0),
        puzzle("```\n(1 + 2) * 8\n```", 1, FLEXIBLE),
        puzzle("<answer>(1+2)*8=24</answer>", 1),
        puzzle("<answer>24=8*(2+1)</answer>", 1),
        puzzle("<answer>8(1+2)</answer>", 0),
        puzzle("<answer>8 * 3</answer>", 0),
        puzzle("<answer>(2 + 1) × 8 → 24</answer>", 1),
        puzzle("<answer>Answer: (1 + 2) * 8</answer>", 1),
        puzzle("<answer>\\( (1 + 2) \\cdot 8 \\)</answer>", 1),
        puzzle("<answer>(1 + 2) * 8\n</answer> uses all", 1),
        puzzle("<answer>1 + 2 = 3, 3 * 8 = 24</answer>", 0),
        puzzle("<answer>(1 + 2) * 8 ≠ 24</answer>", 0),
        puzzle("<answer>(1 + 2) ∗ 8</answer>", 1),
        puzzle("<answer>{1 + 2} * 8</answer>", 1),
        puzzle("<answer>result = (1 + 2) * 8</answer>", 1),
        puzzle("(1 + 2) * 8 = 24", 1, FLEXIBLE),
        puzzle("So 24 = (1 + 2) * 8.", 1, FLEXIBLE),
        puzzle("The answer is (1 + 2) * 8.", 1, FLEXIBLE),
        puzzle("- **(1 + 2) * 8 = 24**", 1, FLEXIBLE),
        puzzle("<answer>+(1 + 2) * 8</answer>", 0),
        puzzle("<answer>(1 + 2) * 8 = 24.0</answer>", 1),
    ],
    "choices": [
        choice("I'd say C; D is close", 1),
        choice("A and B are out. C or D? D is wrong. C.", 1),
        choice("C is incorrect, D is correct", 0),
        choice("C is better than A, B or D", 1),
        choice("A: no. B: no. C: yes. D: no.", 1),
        choice("Between A and C, I go with C", 1),
        choice("Option C.", 1),
        choice("**C)** the whale", 1),
        choice("I am torn between C and D, but D it is", 0),
        choice("The answer could be C, but it is D", 0),
        choice("The answer is not C", 0),
        choice("The answer is either B or C", 0),
        choice("C or D", 0),
        choice("D or C", 0),
        choice("Answer: B/C", 0),
        choice("It is better than A, B or D: C", 1),
        choice("All except C", 0),
        choice("The only wrong one is D, so C", 1),
        choice("It's C. A is for amateurs.", 1),
        choice("Not A. Not B. Not D.", 0),
        choice("The correct choice is: (C).", 1),
        choice("answer = C", 1),
        choice("Answer: C or maybe D", 0),
        choice("C++ is a language", 0),
        choice("My answer: D. No wait, C.", 1),
        choice("If it were A, then B; it is C", 1),
        choice("\\boxed{\\text{C}}", 1),
        choice("C.", 1),
        choice("The answer is D. C is wrong.", 0),
        choice("yes and no, but mostly yes", 1, "yes", ["yes", "no"]),
        choice("No. Yes would be wrong.", 1, "no", ["yes", "no"]),
        choice("I know it: yes", 1, "yes", ["yes", "no"]),
        choice("not true", 0, "true", ["true", "false"]),
    ],
    "negation": [
        word("It's no longer Paris", "Paris", 0),
        word("Paris - wrong", "Paris", 0),
        word("Paris was ruled out", "Paris", 0),
        number("It's 7, certainly not 5 or 6", "7", 1, FLEXIBLE),
        maths("It's $7$, certainly not $5$ or $6$", "7", 1, FLEXIBLE),
        word("The capital isn't Paris.", "Paris", 0),
        word("It was never Paris", "Paris", 0),
        word("No, it is Paris", "Paris", 1),
        word("Definitely Paris, not Lyon", "Paris", 1),
        word("Paris? No.", "Paris", 0),
        word("Paris? No, Lyon.", "Paris", 0),
        word("Lyon? No, Paris.", "Paris", 1),
        word("It is hardly Paris", "Paris", 0),
        word("It is anything but Paris", "Paris", 0),
        word("It can be no other than Paris", "Paris", 1),
        word("none other than Paris", "Paris", 1),
        word("I doubt that it is Paris", "Paris", 0),
        word("It is not true that it is Paris", "Paris", 0),
        word("It is Paris, isn't it?", "Paris", 1),
        word("Not Lyon, Paris", "Paris", 1),
        word("not Paris, Lyon or Nice", "Paris", 0),
        word("No doubt it is Paris", "Paris", 1),
        word("Without a doubt, that is Paris", "Paris", 1),
        word("I doubt it. Paris!", "Paris", 1),
        word("Nothing but Paris", "Paris", 1),
        word("Better than Lyon: Paris", "Paris", 1),
        number("It takes no more than 12.", "12", 1, FLEXIBLE),
        number("It is 4 more than 8, so 12", "12", 1, FLEXIBLE),
        number("It is not 5 or 6 but 7", "7", 1, FLEXIBLE),
        number("He does not have 5 apples but 7", "7", 1, FLEXIBLE),
        number("#### 5 is wrong", "5", 0),
        number("The answer is 5. No doubt.", "5", 1, FLEXIBLE),
        number("Not only 5 but all 7", "7", 1, FLEXIBLE),
        maths("It is $5$, no more, no less.", "5", 1, FLEXIBLE),
        maths("It can't be 3/4, so it is 1/4.", "\\frac14", 1, FLEXIBLE),
        maths("It is not -5, it is 7-2", "5", 1, FLEXIBLE),
        number("The answer is not 5, it is 7", "7", 1, FLEXIBLE),
        number("The answer is not 5, it is 7", "5", 0, FLEXIBLE),
        number("5? no, 7", "7", 1, FLEXIBLE),
        number("The answer is 7, not 5", "7", 1, FLEXIBLE),
        number("It is 7. 5 is wrong.", "7", 1, FLEXIBLE),
        number("Is it 5? No.", "5", 0, FLEXIBLE),
        number("It is 7 rather than 5", "7", 1, FLEXIBLE),
        number("7, instead of 5", "7", 1, FLEXIBLE),
        number("It is neither 5 nor 6", "6", 0, FLEXIBLE),
        maths("The answer is not 5, it is 7", "7", 1, FLEXIBLE),
        maths("The answer is not $5$, it is $7$", "5", 0, FLEXIBLE),
        maths("5? no, 7", "7", 1, FLEXIBLE),
        maths("The answer is 7, not 5", "7", 1, FLEXIBLE),
        maths("The answer is $7$, not $5$.", "5", 0, FLEXIBLE),
        maths("It is $7$. $5$ is wrong.", "7", 1, FLEXIBLE),
        maths("Is it $5$? No.", "5", 0, FLEXIBLE),
        maths("It isn't $\\frac{1}{2}$ but $\\frac{1}{3}$", "\\frac13", 1, FLEXIBLE),
        maths("It is $\\frac{1}{3}$ instead of $\\frac{1}{2}$", "\\frac13", 1, FLEXIBLE),
        maths("It is not 5", "5", 0, FLEXIBLE),
        maths("It is neither 5 nor 6", "6", 0, FLEXIBLE),
    ],
    "SMILES": [
        smiles("<answer>1. CCO\n2. CC</answer>", "CC.OCC", 1),
        smiles("\\boxed{CCO}", "OCC", 1),
        smiles("<answer>CCO.CC</answer>", "CC.OCC", 1),
        smiles("<answer>CC.CC.OCC</answer>", "CC.OCC", 0),
        smiles("<answer>[Na+].[Cl-]</answer>", "[Cl-].[Na+]", 1),
        smiles("<answer>[NH4+]</answer>", "N", 0),
        smiles("<answer>C(=O)(O)C</answer>", "CC(=O)O", 1),
        smiles("<answer>F/C=C/F</answer>", "F\\C=C\\F", 1),
        smiles("<answer>F/C=C/F</answer>", "F/C=C\\F", 0),
        smiles("<answer>[2H]C</answer>", "C", 0),
        smiles("<answer>N#CC</answer>", "CC#N", 1),
        smiles("<answer>O=[N+]([O-])c1ccccc1</answer>", "c1ccccc1[N+](=O)[O-]", 1),
        smiles("<answer>C1CC1.C1CC1</answer>", "C1CC1.C1CC1", 1),
        smiles("<answer>SMILES: CCO</answer>", "OCC", 1),
        smiles("<answer>CCO and CC</answer>", "CC.OCC", 1),
        smiles("<answer>ethanol</answer>", "CCO", 0),
        smiles("The reactants are CCO.CC.", "CC.OCC", 1),
        smiles("<answer>[CH3:1][OH:2]</answer>", "CO", 1),
        smiles("<answer>CO>>C</answer>", "CO", 0),
        smiles("<answer>**CCO**</answer>", "OCC", 1),
    ],
    "orders": [
        order("C → A → D → B is the order, A → B → C → D is not", 1),
        order("(C)(A)(D)(B)", 1),
        order("<answer>C, A, D, B</answer>", 1),
        order("<answer>CADB</answer>", 1),
        order("C > A > D > B", 1),
        order("1. C\n2. A\n3. D\n4. B", 1),
        order("First C, then A, then D, and finally B.", 1),
        order("<answer>C A D</answer>", 0),
        order("<answer>C, A, D, B, B</answer>", 0),
        order("not A B C D but C A D B", 1),
        order("$C \\to A \\to D \\to B$", 1),
        order('<answer>["C", "A", "D", "B"]</answer>', 1),
        order("C, A, D, B (not A, B, C, D)", 1),
    ],
}
EVERY = [(kind, *case) for kind, cases in CASES.items() for case in cases]


@pytest.mark.parametrize(
    ("kind", "name", "text", "item", "score", "ways"),
    EVERY,
    ids=[
        f"{kind}: {name}: {text!r:.60} {item.get('answer')!r:.20}"
        for kind, name, text, item, *_ in EVERY
    ],
)
def test_an_adversarial_answer_has_its_score(request, kind, name, text, item, score, ways):
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    if name == "smiles":
        pytest.importorskip("rdkit", reason="needs RDKit")
    grader = find(f"thicket_jax.text.graders.{MODULES[name]}:grade" if name in MODULES else name)
    for extraction in ways:
        assert grader(text, {**item, "extraction": extraction}).score == score, extraction
