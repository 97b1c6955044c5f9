"""Learning from few or no examples: heads, losses, unlabelled rows, views that teach each other, attributes."""
