"""1-D signals: what a small MLP continues."""
