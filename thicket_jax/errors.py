"""Errors that say which argument or leaf, what was found, and what to do."""


class ThicketError(Exception):
    """Base of every error that thicket_jax raises on purpose; its text is one line."""


class ArgumentError(ThicketError, ValueError):
    """An argument or option has a value that cannot work."""


class ParameterError(ThicketError, ValueError):
    """The parameter pytree cannot be perturbed as asked."""


class ScoreError(ThicketError, ValueError):
    """The score function returned something that is not a score, or failed for every expert."""


class MemoryLimitError(ThicketError, MemoryError):
    """One expert at a time does not fit the device."""


class RunError(ThicketError):
    """A run directory is damaged, exists already, or belongs to a different run."""


class DataError(ThicketError):
    """A data set is missing, damaged, or too small for disjoint splits."""
