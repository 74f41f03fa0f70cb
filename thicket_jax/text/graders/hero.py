"""Hero-consistency: the continuation of a story names its hero again.

Item: `name`. The name counts as a whole word in its own spelling, "Max" or "Max's", not "Maxine"
or "max". The vote is over `named` and `not named`; every text has an answer.
"""

from collections.abc import Mapping
from typing import Any

from thicket_jax.text.graders.words import positions
from thicket_jax.text.grading import Outcome


def grade(text: str, item: Mapping[str, Any]) -> Outcome:
    """Grades whether a continuation names the hero.

    Example:
      >>> grade("One day, Max saw a big box.", {"name": "Max"})
      Outcome(answer='named', score=1.0, columns={})
    """
    named = next(positions(text, item["name"]), None) is not None
    return Outcome("named" if named else "not named", float(named))
