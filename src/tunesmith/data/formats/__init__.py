"""Forms in which files hold conversations, one file each."""
