"""Regularizers, one per file."""
