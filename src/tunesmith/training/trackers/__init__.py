"""Trackers of training, one per file."""
