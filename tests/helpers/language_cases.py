"""Each task's rows, what it must ask of each, and texts that are right and wrong."""

import dataclasses
from collections.abc import Callable
from typing import Any

from thicket_jax.tasks.language import (
    countdown,
    gsm8k,
    math500,
    mbpp,
    olympiadbench,
    qa,
    rocstories,
    uspto50k,
)
from thicket_jax.text.graders.smiles import molecules


@dataclasses.dataclass(frozen=True)
class Case:
    """A task's rows, what it must ask of each, and texts that are right and wrong."""

    module: Any
    row: Callable[[int], dict]
    asked: Callable[[int], list[str]]
    right: Callable[[int], str]
    wrong: Callable[[int], str]
    answer: Callable[[int], str | None]  # the canonical answer of the right text
    train: str = "train.jsonl"
    test: str = "test.jsonl"
    options: dict = dataclasses.field(default_factory=dict)


STORY = ["Ann woke up.", "She ate.", "She ran to school.", "She was late.", "She went to bed {}."]


def story(i):
    return [*STORY[:4], STORY[4].format(i)]


def order(i):
    return rocstories.shuffled({"sentences": story(i)})[1]


COUNTDOWN = Case(
    countdown,
    row=lambda i: {"nums": [i, 2, 4], "target": (i + 2) * 4, "solution": f"({i} + 2) * 4"},
    asked=lambda i: [f"{i}, 2, 4", f"make {(i + 2) * 4}.", "exactly once", "<answer>"],
    right=lambda i: f"So <answer>({i} + 2) * 4</answer>",
    wrong=lambda i: f"So <answer>{i} + 2 ** 4</answer>",
    answer=lambda i: f"valid:{(i + 2) * 4}",
)
GSM8K = Case(
    gsm8k,
    row=lambda i: {
        "question": f"What is {i} and 1,000?",
        "answer": f"It is {i} + 1,000 = <<{i}+1000=100{i}>>1,00{i}.\n#### 1,00{i}",
    },
    asked=lambda i: [f"What is {i} and 1,000?", "step by step", "####"],
    right=lambda i: f"$100{i}.\n#### $1,00{i}.00",
    wrong=lambda i: f"#### {i}",
    answer=lambda i: f"100{i}",
)
MATH = Case(
    math500,
    row=lambda i: {"problem": f"Halve {i}.", "solution": rf"It is \boxed{{\frac{{{i}}}{{2}}}}."},
    asked=lambda i: [f"Halve {i}.", r"\boxed{}", "step by step"],
    right=lambda i: rf"\boxed{{\dfrac{{{2 * i}}}{{4}}}}",
    wrong=lambda i: rf"\boxed{{{i + 1}}}",
    answer=lambda i: rf"\frac{{{2 * i}}}{{4}}",
)
OLYMPIAD = Case(
    olympiadbench,
    row=lambda i: {
        "context": "A train is late.",
        "question": f"How late, if it is {i}?",
        "final_answer": [f"${i}$", "$7$"],
        "solution": ["It is late."],
        "is_multiple_answer": True,
        "unit": "min",
        "error": None,
        "modality": "Text-only",
    },
    asked=lambda i: ["A train is late.", f"it is {i}?", r"\boxed{}", "several", "in min"],
    right=lambda i: rf"\boxed{{7, {i}}}",
    wrong=lambda i: rf"\boxed{{{i}}}",
    answer=lambda i: f"7,{i}",
)
MBPP = Case(
    mbpp,
    row=lambda i: {
        "task_id": (601 if i < 2 else 11) + i,
        "text": f"Add {i}.",
        "code": f"def plus(x):\r\n    return x + {i}",
        "test_setup_code": "",
        "test_list": [f"assert plus(1) == {i + 1}", f"assert plus(0) == {i}"],
    },
    asked=lambda i: [f"Add {i}.", f"assert plus(1) == {i + 1}\nassert plus(0)", "```python"],
    right=lambda i: f"```python\ndef plus(x):\n    return x + {i}\n```",
    wrong=lambda i: "```python\ndef plus(x):\n    raise SystemExit(0)\n```",
    answer=lambda i: None,  # a digest of what the program does
    train="mbpp.jsonl",
    test="",
)
ROC = Case(
    rocstories,
    row=lambda i: {"storyid": i, **{f"sentence{j + 1}": s for j, s in enumerate(story(i))}},
    asked=lambda i: [*story(i), "A: ", "E: ", "<answer>"],
    right=lambda i: f"<answer>{', '.join(order(i))}</answer>",
    wrong=lambda i: f"<answer>{', '.join(reversed(order(i)))}</answer>",
    answer=lambda i: " ".join(order(i)),
    train="train.csv",
    test="test.csv",
)
USPTO = Case(
    uspto50k,
    row=lambda i: {"class": 1, "rxn_smiles": f"O.[CH3:{i + 1}]Br>[Na]>{'C' * (i + 1)}O"},
    asked=lambda i: [f"{'C' * (i + 1)}O.", "SMILES", "<answer>"],
    right=lambda i: "<answer>[CH3]Br.O</answer>",
    wrong=lambda i: "<answer>O</answer>",
    answer=lambda i: molecules("O.[CH3]Br"),  # canonical where RDKit is installed
    train="train.csv",
    test="test.csv",
)
QA = Case(
    qa,
    row=lambda i: {"question": f"Number {i}?", "answer": f"n {i}"},
    asked=lambda i: [f"Number {i}?"],
    right=lambda i: f'"N  {i}."',
    wrong=lambda i: f"not n {i}",
    answer=lambda i: f"n {i}",
)
HF = {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"}
CASES = {
    "countdown jsonl": COUNTDOWN,
    "countdown json": dataclasses.replace(COUNTDOWN, train="train.json", test="test.json"),
    "countdown parquet": dataclasses.replace(COUNTDOWN, **HF),
    "gsm8k jsonl": GSM8K,
    "gsm8k parquet": dataclasses.replace(GSM8K, **HF),
    "math500 jsonl": MATH,
    "math500 parquet": dataclasses.replace(
        MATH, row=lambda i: {"question": f"Halve {i}.", "answer": f"{i / 2:g}"}, **HF
    ),
    "olympiadbench jsonl": OLYMPIAD,
    "olympiadbench parquet": dataclasses.replace(OLYMPIAD, **HF),
    "mbpp jsonl": MBPP,
    "mbpp parquet": dataclasses.replace(
        MBPP,
        row=lambda i: {
            "prompt": f"Add {i}.",
            "task_id": (601 if i < 2 else 11) + i,
            "test_imports": ["import math"],
            "test_list": [f"assert plus(1) == {i + 1}", f"assert plus(0) == math.floor({i})"],
        },
        train="full.parquet",
    ),
    "rocstories csv": ROC,
    "rocstories jsonl": dataclasses.replace(
        ROC, row=lambda i: {"sentences": story(i)}, train="train.jsonl", test="test.jsonl"
    ),
    "uspto50k csv": USPTO,
    "uspto50k jsonl": dataclasses.replace(
        USPTO,
        row=lambda i: {"product": f"{'C' * (i + 1)}O", "reactants": "O.[CH3:7]Br"},
        train="train.jsonl",
        test="test.jsonl",
    ),
    "qa jsonl": QA,
    "qa csv": dataclasses.replace(QA, train="train.csv", test="test.csv"),
    "qa parquet": dataclasses.replace(QA, **HF),
}
