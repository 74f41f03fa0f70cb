"""The options of tasks whose answers are boxed LaTeX, written after long reasoning."""

import dataclasses
from typing import ClassVar

from thicket_jax.errors import check_choice
from thicket_jax.tasks.language import settings

_EXTRACTIONS = ("strict", "flexible")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Options):
    """The options of competition problems."""

    max_tokens: int = 1024
    """Tokens that are generated at most for an answer."""
    extraction: str = "strict"
    """strict: the answer is boxed; flexible: it may stand elsewhere. Both are recorded."""

    STOPS: ClassVar[tuple[str, ...]] = (
        *settings.Options.STOPS,
        "\nProblem:",
        "\nReason step by step, and put the final answer",
    )

    def check(self) -> None:
        """Raises `ArgumentError` for what cannot work."""
        super().check()
        check_choice("extraction", self.extraction, _EXTRACTIONS)
