"""How: a function of one expert → of many."""
