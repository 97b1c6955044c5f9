"""Chat formats for models that bring none, one file each."""
