"""What a closed loop changes after a look at the errors, one kind of change per file."""
