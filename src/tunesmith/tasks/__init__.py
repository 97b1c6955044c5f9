"""Tasks, one per file: encoding, head, loss, decoding, and which metrics and baselines belong to it."""
