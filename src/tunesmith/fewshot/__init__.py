"""Learning from few or no examples: heads that keep rows, losses that compare rows, ways and how one is chosen."""
