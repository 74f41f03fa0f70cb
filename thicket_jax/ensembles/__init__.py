"""K experts → one answer, or one parameter set."""
