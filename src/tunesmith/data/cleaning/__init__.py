"""Cleaning steps, one per file."""
