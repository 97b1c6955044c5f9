"""What a closed loop tries first beside the recipe as written, one per file."""
