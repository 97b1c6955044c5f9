"""Ways to make members from one recipe; one file each."""
