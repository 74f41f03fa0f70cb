"""The compiled programs that are kept, for tests that count them."""

from thicket_jax.mapping import programs


def kept_programs():
    """The keys of all that is kept and is a program."""
    return {key for key, value in programs._KEPT.items() if isinstance(value, programs.Program)}
