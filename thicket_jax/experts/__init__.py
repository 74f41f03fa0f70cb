"""Who: an expert is a recipe; the recipe → parameters."""
