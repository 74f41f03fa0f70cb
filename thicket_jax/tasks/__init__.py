"""What can be run: a module a task, with its data, base model, score and figure."""
