"""`thicket tasks`."""

from thicket_jax.errors import ArgumentError
from thicket_jax.tasks import registry


def tasks(words: list[str]) -> None:
    """Lists what can be run, one line each."""
    if words:
        raise ArgumentError(f"thicket tasks takes no options, got {' '.join(words)}")
    for name, (_, line) in registry.REGISTRY.items():
        print(f"{name:14} {line}")
