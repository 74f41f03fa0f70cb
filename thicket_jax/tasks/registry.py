"""Which tasks there are: name → module and one line. Imports none of them, so listing is free."""

import importlib
from types import ModuleType

from thicket_jax.errors import check_word

REGISTRY: dict[str, tuple[str, str]] = {
    "signals": (
        "thicket_jax.tasks.signals.task",
        "1-D signals rolled out by a small MLP (Neural Thickets, section on 1-D regression)",
    ),
    "digits": (
        "thicket_jax.tasks.images.task",
        "handwritten digits, or any image classification set of tensorflow-datasets",
    ),
    "countdown": (
        "thicket_jax.tasks.language.countdown",
        "language model: reach a target with given numbers; puzzles are generated",
    ),
    "gsm8k": ("thicket_jax.tasks.language.gsm8k", "language model: grade-school word problems"),
    "math500": (
        "thicket_jax.tasks.language.math500",
        "language model: competition mathematics in LaTeX",
    ),
    "olympiadbench": (
        "thicket_jax.tasks.language.olympiadbench",
        "language model: olympiad problems with final answers",
    ),
    "mbpp": (
        "thicket_jax.tasks.language.mbpp",
        "language model: short Python programs, run in a sandbox",
    ),
    "rocstories": (
        "thicket_jax.tasks.language.rocstories",
        "language model: put the sentences of a story in order",
    ),
    "uspto50k": (
        "thicket_jax.tasks.language.uspto50k",
        "language model: the reactants of a reaction from its product",
    ),
    "stories": (
        "thicket_jax.tasks.language.stories",
        "language model: does the continuation of a story name its hero again?",
    ),
    "qa": (
        "thicket_jax.tasks.language.qa",
        "language model: your own questions and answers, and a grader by name",
    ),
}


def module(name: str) -> ModuleType:
    """Returns the module of task `name`; an unknown name is an `ArgumentError`."""
    check_word("task", name, sorted(REGISTRY))
    return importlib.import_module(REGISTRY[name][0])
