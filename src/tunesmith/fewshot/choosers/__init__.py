"""What stands in the place of a method and chooses one, one per file."""
