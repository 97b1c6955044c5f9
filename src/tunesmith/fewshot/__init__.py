"""Learning from few examples: heads and losses of tasks, and learners of episodes."""
