"""Strategies that choose demonstrations, one per file."""
