"""A score for each expert."""
