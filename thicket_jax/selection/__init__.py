"""The best K."""
