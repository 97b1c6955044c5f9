"""What the user writes: a recipe, as YAML or as Python values."""
