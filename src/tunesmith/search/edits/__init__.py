"""One file per way to change a prompt."""
