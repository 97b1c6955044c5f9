"""One file per way to classes that were never seen."""
