"""Learning from few examples: episodes, the learners that train on them, and how they are scored."""
