"""Numbers from logged scores; no model."""
