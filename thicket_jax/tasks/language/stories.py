"""Hero-consistency: does the continuation of a story name its hero again?

Made for small story models such as the 260 thousand parameters of stories260K: a prompt introduces
an animal by name, and the continuation is right if it names it again, as a whole word.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks import task
from thicket_jax.tasks.language import asking, settings, shared
from thicket_jax.tasks.language.shared import base_params as base_params
from thicket_jax.tasks.language.shared import save as save
from thicket_jax.text.data.splits import Split

# fmt: off
ANIMALS = (
    "dog", "cat", "bird", "fish", "bear", "rabbit", "mouse", "duck", "frog", "pig", "horse",
    "cow", "fox", "lion", "monkey", "owl", "bee", "turtle", "sheep", "goat", "hen", "kitten",
    "puppy", "squirrel", "ant",
)
NAMES = (
    "Max", "Lily", "Tom", "Sue", "Sam", "Amy", "Tim", "Lucy", "Bob", "Spot", "Daisy", "Timmy",
    "Sally", "Kitty", "Molly", "Jill", "Coco", "Nina", "Pete", "Mark", "Mia", "Jack", "Jane",
    "Tilly", "Toby", "Billy", "Buddy", "Fluffy", "Bella", "Mimi",
)
# fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of `thicket run stories`."""

    num: int = 512
    """Number of experts to sample (N)."""
    sigma: tuple[float, ...] = (0.003, 0.01, 0.03)
    """Standard deviations of the perturbation; several are dealt out in turn."""
    train_items: int = 32
    """Prompts that score the experts."""
    test_items: int | None = 256
    """Held-out prompts."""
    max_tokens: int = 48
    """Tokens of a continuation."""
    chat: bool | None = False
    """Apply the tokenizer's chat template; a story is continued without."""

    STOPS: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        assert self.test_items is not None
        count = len(ANIMALS) * len(NAMES)
        if self.train_items + self.test_items > count:
            raise ArgumentError(
                f"stories has {count} prompts, not {self.train_items} for training and "
                f"{self.test_items} for testing; lower --train-items or --test-items"
            )

    def unread(self) -> dict[str, str]:
        """Returns which options nothing reads beside the others, and why."""
        names = ("data", "test_data", "allow_test_selection")
        found = super().unread() | dict.fromkeys(names, "is of no use: stories makes its prompts")
        return found | {"few_shot": "is of no use: a story has no right answer to show"}


def build(options: Options, tell: task.Tell = task.quiet) -> task.Task:
    """Makes the task; raises a one-line error for what cannot be used."""
    assert options.test_items is not None
    rows = [{"animal": animal, "name": name} for animal in ANIMALS for name in NAMES]
    order = np.random.default_rng(options.seed).permutation(len(rows))
    train = [rows[i] for i in order[: options.train_items]]
    test = [rows[i] for i in order[len(order) - options.test_items :]]
    split = Split(train, test, (), {"split": f"permutation of seed {options.seed}"})
    spec = asking.Spec("stories", "thicket_jax.text.graders.hero:grade", prompt, dict)
    return shared.build(options, spec, split, tell)


def prompt(row: Mapping[str, Any]) -> str:
    """Returns the beginning of a story."""
    return (
        f"Once upon a time, there was a little {row['animal']} named {row['name']}. "
        f"One day, {row['name']}"
    )
