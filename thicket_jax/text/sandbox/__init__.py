"""Programs of a model, run without network, forks or files."""
