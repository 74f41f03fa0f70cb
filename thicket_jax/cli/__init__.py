"""The command `thicket`; the only package that prints."""
