"""One file per pool of workers for a search."""
