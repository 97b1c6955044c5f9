"""Losses, one per file. Those that compare rows or class vectors are in `fewshot/losses`."""
