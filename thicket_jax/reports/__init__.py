"""Numbers → words, pictures, pages."""
