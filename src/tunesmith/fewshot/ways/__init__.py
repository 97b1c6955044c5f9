"""Ways to learn from a few examples, one per file; method auto chooses among them."""
