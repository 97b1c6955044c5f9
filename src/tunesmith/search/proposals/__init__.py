"""Ways to use a model for a task that the advisor knows, one per file."""
