"""Augmentations of texts that need a model: their forms are written before training."""
