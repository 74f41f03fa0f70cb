"""Language models: a module a task, and what they share."""
