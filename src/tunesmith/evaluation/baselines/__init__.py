"""Baselines, one per file: what a tuned model must beat to be worth anything."""
