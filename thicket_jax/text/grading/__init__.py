"""Generated texts → answers and outcomes, in worker processes that are bounded in time."""

from thicket_jax.text.grading.grading import Graders, Outcome

__all__ = ["Graders", "Outcome"]
