"""Prompts: text in, text out."""
