"""Ways to put members' answers, or their weights, together; one file each."""
