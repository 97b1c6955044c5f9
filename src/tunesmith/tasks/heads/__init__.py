"""Heads, one per file: from features to logits. Those that learn from few examples are in `fewshot/heads`."""
