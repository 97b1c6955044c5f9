"""Learning from few or no labelled rows."""
