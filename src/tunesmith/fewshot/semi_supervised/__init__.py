"""One file per way to learn from unlabelled rows."""
