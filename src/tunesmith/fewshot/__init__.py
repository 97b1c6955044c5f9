"""Learning from few or no examples: heads, losses, episodes, unlabelled rows, dual learning, attributes."""
