"""One file per way in which two views, networks or classifiers teach each other."""
