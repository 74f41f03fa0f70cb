"""`thicket tasks`."""

from thicket_jax.cli.parsing import asks_help
from thicket_jax.errors import ArgumentError
from thicket_jax.tasks import registry


def tasks(words: list[str]) -> None:
    """Lists what can be run, one line each."""
    if asks_help(words):
        print("usage: thicket tasks\n\nLists what can be run, one line each.")
        return
    if words:
        raise ArgumentError(f"thicket tasks takes no options, got {' '.join(words)}")
    for name, (_, line) in registry.REGISTRY.items():
        print(f"{name:14} {line}")
