"""Verbalizers, one per file: from what a model says at the place of the answer to scores of labels."""
