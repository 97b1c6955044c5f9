"""Ways to make training rows of others, one per file."""
