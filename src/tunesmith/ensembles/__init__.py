"""Several tuned deltas of one model as one: how members are made, and how their answers are put together."""
