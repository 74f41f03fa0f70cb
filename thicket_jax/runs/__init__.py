"""A search on disk; knows no pipeline."""
