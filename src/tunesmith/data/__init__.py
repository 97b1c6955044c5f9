"""Read, check and split examples."""
