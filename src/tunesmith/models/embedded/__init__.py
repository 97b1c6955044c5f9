"""Models known by a short name, one per file."""
