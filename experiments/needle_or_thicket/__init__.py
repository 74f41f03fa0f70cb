"""Needle, thicket or plateau: how dense good experts are, how far away, and Adam beside them."""
