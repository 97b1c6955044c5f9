"""Learners of episodes, one per file."""
