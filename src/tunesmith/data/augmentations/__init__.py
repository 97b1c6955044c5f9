"""Augmentations of texts, one per file."""
