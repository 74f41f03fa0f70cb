"""The algorithm: sample → score → select → ensemble → report."""
