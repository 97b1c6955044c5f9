"""Losses that compare rows with each other or with class vectors, one per file."""
