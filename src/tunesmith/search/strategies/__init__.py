"""One file per search strategy."""
