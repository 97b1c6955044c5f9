"""Readers of data files, one format per file."""
