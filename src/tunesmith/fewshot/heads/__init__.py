"""Heads for few examples, one per file."""
